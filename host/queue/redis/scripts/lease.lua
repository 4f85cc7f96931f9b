-- ARGV: queue, the number of this call, 1 if it repeats a call without an answer, node, ttl, how many tasks
-- and how many bytes in all, how many bytes a slow connection carries in a millisecond, then a lease request
-- (`matcher` in common.lua).
-- Returns the time, 1 if the task types have to be registered first, 1 if due tasks were left because of
-- their bytes, and for each task the id, fencing token, attempt, m, p, t, b, 1 if this is its first attempt
-- without an error, and 1 if it is a suspect. A first task is returned whatever its size.
local number, again = tonumber(ARGV[2]), ARGV[3] == '1'
local node, ttl, max = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local max_bytes, rate = tonumber(ARGV[7]), tonumber(ARGV[8])
local leased, more = {}, 0

-- Returns the end of leases whose answer has so many bytes. What exceeds the limit gets the time that it
-- takes on its way.
local function lease_end(bytes) return NOW + ttl + math.floor(math.max(0, bytes - max_bytes) / rate) end

local function give(id, fence, attempt, begun, m, p, t, e, losses)
  local n = #leased
  leased[n + 1], leased[n + 2], leased[n + 3] = id, fence, attempt
  leased[n + 4], leased[n + 5], leased[n + 6] = m, p, t
  leased[n + 7], leased[n + 8] = begun, (attempt == 1 and not e) and 1 or 0
  leased[n + 9] = (number_of(losses) or 0) >= SUSPECT_AFTER and 1 or 0
end

-- A repeated call whose first one was executed gets the same answer; the client of a cluster repeats calls
-- by itself. A call that arrives after a later one leases nothing.
local call = TAG .. ':call:' .. FROM
local known = redis.call('GET', call)
local last_number = known and tonumber(string.match(known, '^%d+'))
if last_number and last_number >= number then
  if last_number > number then return { integer(NOW), 0, 0, {} } end
  local held, bytes = {}, 0
  for id, fence in string.gmatch(known, ' (%S+) (%d+)') do
    local there = read(id, 's', 'f', 'a', 'b', 'm', 'p', 't', 'e', 'v')
    if there[1] == 'r' and there[2] == fence and there[5] and there[6] and are_numbers(there[3], there[4], there[7]) then
      held[#held + 1] = id
      bytes = bytes + #there[5] + #there[6]
      give(id, fence, tonumber(there[3]), unpack(there, 4, 9))
    end
  end
  local ends = lease_end(bytes)
  for _, id in ipairs(held) do
    redis.call('HSET', key(id), 'u', integer(ends))
    add(TAG .. ':leases', ends, id)
  end
  write()
  return { integer(NOW), 0, 0, leased }
end
local requested_of, available = matcher(9)
if not requested_of then return { integer(NOW), 1, 0, {} } end

local function answer()
  local words = { integer(number) }
  for n = 1, #leased, 9 do
    words[#words + 1], words[#words + 2] = leased[n], leased[n + 1]
  end
  -- An empty answer that is lost loses nothing, unless it ends a repeated call.
  if again or #leased > 0 then
    redis.call('SET', call, table.concat(words, ' '), 'PX', 600000)
  end
  return { integer(NOW), 0, more, leased }
end

-- Backlogs are read in the order of their first tasks, a page at a time, and the oldest tasks of a page are
-- taken. A task that does not fit is passed over, so that it does not block smaller ones.
local PAGE = 64
local last = NOW * STEP + STEP - 1
local taken, has_suspect = {}, false

local function due_in(backlog)
  local requested, suspect = requested_of(backlog)
  if not requested or requested.left <= 0 or not fits(requested, available) or suspect and has_suspect then
    return {}
  end
  local limit = suspect and 1 or math.min(requested.left, max - #taken)
  local due = redis.call('ZRANGE', backlog_key(backlog), '-inf', last, 'BYSCORE', 'LIMIT', 0, limit, 'WITHSCORES')
  -- An empty backlog is in TAG:heads by mistake.
  if #due == 0 then dirty[backlog] = true end
  local heads = {}
  for d = 1, #due, 2 do
    heads[#heads + 1] = {
      id = due[d], score = tonumber(due[d + 1]), backlog = backlog, requested = requested, suspect = suspect,
    }
  end
  return heads
end

local heads, seen = {}, 0
repeat
  local backlogs = redis.call('ZRANGE', TAG .. ':heads', '-inf', last, 'BYSCORE', 'LIMIT', seen, PAGE, 'WITHSCORES')
  seen = seen + #backlogs / 2
  for l = 1, #backlogs, 2 do
    for _, head in ipairs(due_in(backlogs[l])) do heads[#heads + 1] = head end
  end
  -- A score has the low bits of the number; the id decides between equal scores.
  table.sort(heads, function(a, b)
    if a.score ~= b.score then return a.score < b.score end
    return a.id < b.id
  end)
  -- Backlogs that were not read yet may have older tasks than those behind this score.
  local bound = #backlogs == 2 * PAGE and tonumber(backlogs[#backlogs]) or math.huge
  local behind = {}
  for _, head in ipairs(heads) do
    local requested = head.requested
    if head.score > bound then
      behind[#behind + 1] = head
    elseif #taken < max and requested.left > 0 and fits(requested, available)
      and not (head.suspect and has_suspect) then
      requested.left = requested.left - 1
      available.bytes, available.slots = available.bytes - requested.bytes, available.slots - requested.slots
      has_suspect = has_suspect or head.suspect
      taken[#taken + 1] = head
    end
  end
  heads = behind
until #backlogs < 2 * PAGE or #taken >= max
local rows, bytes = {}, 0
for _, head in ipairs(taken) do
  local there = read(head.id, 's', 'a', 'm', 'p', 't', 'e', 'v', 'l', 'o', 'u', 'q', 'z')
  local size = #(there[3] or '') + #(there[4] or '')
  if #rows > 0 and bytes + size > max_bytes then
    more = 1
    break
  end
  dequeue(head.id, head.backlog)
  -- A task that was deleted by hand is still in its backlog.
  if there[1] == 'p' and not (there[3] and there[4] and valid_route(there[8])
    and are_numbers(there[2], there[5], unpack(there, 9, 12))) then
    fail_damaged(head.id, 'it lacks fields that an attempt needs')
  elseif there[1] == 'p' and backlog_of(there[8], there[7]) == head.backlog then
    rows[#rows + 1] = { head.id, there }
    bytes = bytes + size
  end
end
if #rows == 0 then
  write()
  return answer()
end
local fence, ends = redis.call('HINCRBY', N, 'fence', #rows) - #rows, lease_end(bytes)
for _, row in ipairs(rows) do
  local id, there = row[1], row[2]
  fence = fence + 1
  local attempt = tonumber(there[2]) + 1
  redis.call('HSET', key(id), 's', 'r', 'a', attempt, 'f', integer(fence), 'u', integer(ends),
    'b', integer(NOW), 'n', node)
  add(TAG .. ':leases', ends, id)
  record_transition(id, there[8], 'p', 'r', tonumber(there[9]))
  give(id, integer(fence), attempt, integer(NOW), unpack(there, 3, 7))
end
write()
return answer()
