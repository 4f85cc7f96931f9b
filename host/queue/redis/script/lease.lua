-- ARGV: from, the number of this call, 1 if it was made before and its answer was not heard, node, ttl,
-- how many in all, then what is wanted (`wants` in common.lua).
-- Answers the time, 1 if what is wanted has to be told first, and for each task id, fence, attempt, m, p,
-- t, b, 1 where nothing has happened to it before, and 1 where it is a suspect.
local number, again = tonumber(ARGV[2]), ARGV[3] == '1'
local node, ttl, max = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local leased = {}

-- How many bytes of payloads one answer has, but for the last task's.
local MOST = 8 * 1024 * 1024

local function give(id, fence, attempt, begun, m, p, t, e, losses)
  local n = #leased
  leased[n + 1], leased[n + 2], leased[n + 3] = id, fence, attempt
  leased[n + 4], leased[n + 5], leased[n + 6] = m, p, t
  leased[n + 7], leased[n + 8] = begun, (attempt == 1 and not e) and 1 or 0
  leased[n + 9] = (tonumber(losses) or 0) >= SUSPECT_AFTER and 1 or 0
end

-- A call that was made before, and did get here, has the answer that it had: its maker asks again, or a
-- client of a cluster does so by itself. One that comes late, after its maker went on, takes nothing.
local call = TAG .. ':call:' .. FROM
local known = redis.call('GET', call)
local made = known and tonumber(string.match(known, '^%d+'))
if made and made >= number then
  if made > number then return { whole(NOW), 0, {} } end
  local ends = NOW + ttl
  for id, fence in string.gmatch(known, ' (%S+) (%d+)') do
    local task = key(id)
    local there = read(id, 's', 'f', 'a', 'b', 'm', 'p', 't', 'e', 'v')
    if there[1] == 'r' and there[2] == fence and there[5] and there[6] and numbers(there[3], there[4], there[7]) then
      redis.call('HSET', task, 'u', whole(ends))
      add(TAG .. ':leases', ends, id)
      give(id, fence, tonumber(there[3]), unpack(there, 4, 9))
    end
  end
  write()
  return { whole(NOW), 0, leased }
end
local of, room = wants(7)
if not of then return { whole(NOW), 1, {} } end

local function answer()
  local words = { whole(number) }
  for n = 1, #leased, 9 do
    words[#words + 1], words[#words + 2] = leased[n], leased[n + 1]
  end
  -- Who has heard an answer does not ask for it again, and whose answer was empty lost nothing.
  if again or #leased > 0 then
    redis.call('SET', call, table.concat(words, ' '), 'PX', 600000)
  end
  return { whole(NOW), 0, leased }
end

-- Lanes are looked at in the order of their first tasks, some at a time, and of those the oldest tasks are
-- taken. What does not fit into the room is passed by, so that it holds up nothing smaller.
local LANES = 64
local last = NOW * STEP + STEP - 1
local taken, has_suspect = {}, false

local function due_in(line)
  local wanted, suspect = of(line)
  if not wanted or wanted.left <= 0 or not fits(wanted, room) or suspect and has_suspect then return {} end
  local look = suspect and 1 or math.min(wanted.left, max - #taken)
  local due = redis.call('ZRANGE', lane_key(line), '-inf', last, 'BYSCORE', 'LIMIT', 0, look, 'WITHSCORES')
  -- Then it is in TAG:heads by mistake.
  if #due == 0 then touched[line] = true end
  local heads = {}
  for d = 1, #due, 2 do
    heads[#heads + 1] = { id = due[d], score = tonumber(due[d + 1]), line = line, wanted = wanted, suspect = suspect }
  end
  return heads
end

local heads, seen = {}, 0
repeat
  local lines = redis.call('ZRANGE', TAG .. ':heads', '-inf', last, 'BYSCORE', 'LIMIT', seen, LANES, 'WITHSCORES')
  seen = seen + #lines / 2
  for l = 1, #lines, 2 do
    for _, head in ipairs(due_in(lines[l])) do heads[#heads + 1] = head end
  end
  -- The number's low bits stand in for it, and the id decides between two that share them.
  table.sort(heads, function(a, b)
    if a.score ~= b.score then return a.score < b.score end
    return a.id < b.id
  end)
  -- Lanes that were not looked at yet may have tasks that are older than those behind this.
  local bound = #lines == 2 * LANES and tonumber(lines[#lines]) or math.huge
  local behind = {}
  for _, head in ipairs(heads) do
    local wanted = head.wanted
    if head.score > bound then
      behind[#behind + 1] = head
    elseif #taken < max and wanted.left > 0 and fits(wanted, room) and not (head.suspect and has_suspect) then
      wanted.left = wanted.left - 1
      room.bytes, room.slots = room.bytes - wanted.bytes, room.slots - wanted.slots
      has_suspect = has_suspect or head.suspect
      taken[#taken + 1] = head
    end
  end
  heads = behind
until #lines < 2 * LANES or #taken >= max
local rows, bytes = {}, 0
for _, head in ipairs(taken) do
  if bytes > MOST then break end
  local there = read(head.id, 's', 'a', 'm', 'p', 't', 'e', 'v', 'l', 'o', 'u', 'q', 'z')
  unwait(head.id, head.line)
  -- A task that somebody deleted by hand leaves only its place in the lane.
  if there[1] == 'p' and not (there[3] and there[4] and sound(there[8])
    and tonumber(there[2]) and tonumber(there[5]) and tonumber(there[9])
    and tonumber(there[10]) and tonumber(there[11]) and tonumber(there[12])) then
    condemn(head.id, 'it lacks what an attempt needs')
  elseif there[1] == 'p' and line_of(there[8], there[7]) == head.line then
    rows[#rows + 1] = { head.id, there }
    bytes = bytes + #there[4]
  end
end
if #rows == 0 then
  write()
  return answer()
end
local fence = redis.call('HINCRBY', N, 'fence', #rows) - #rows
for _, row in ipairs(rows) do
  local id, there = row[1], row[2]
  fence = fence + 1
  local attempt, ends = tonumber(there[2]) + 1, NOW + ttl
  redis.call('HSET', key(id), 's', 'r', 'a', attempt, 'f', whole(fence), 'u', whole(ends),
    'b', whole(NOW), 'n', node)
  add(TAG .. ':leases', ends, id)
  move(id, there[8], 'p', 'r', tonumber(there[9]))
  give(id, whole(fence), attempt, whole(NOW), unpack(there, 3, 7))
end
write()
return answer()
