-- ARGV: from, the number of this call, 1 if it was made before and its answer was not heard, node, ttl,
-- how many in all, then for each type its name, how many of it, how many of it may run in this shard
-- (-1: any number), how many lanes follow, and these.
-- Answers the time, and for each task id, fence, attempt, m, p, t, b, and 1 where nothing has happened to
-- it before.
local number, again = tonumber(ARGV[2]), ARGV[3] == '1'
local node, ttl, max = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local leased = {}

-- How many bytes of payloads one answer has, but for the last task's.
local MOST = 8 * 1024 * 1024

local function give(id, fence, attempt, begun, m, p, t, e)
  local n = #leased
  leased[n + 1], leased[n + 2], leased[n + 3] = id, fence, attempt
  leased[n + 4], leased[n + 5], leased[n + 6] = m, p, t
  leased[n + 7], leased[n + 8] = begun, (attempt == 1 and not e) and 1 or 0
end

-- A call that was made before, and did get here, has the answer that it had: its maker asks again, or a
-- client of a cluster does so by itself. One that comes late, after its maker went on, takes nothing.
local call = TAG .. ':call:' .. FROM
local known = redis.call('GET', call)
local made = known and tonumber(string.match(known, '^%d+'))
if made and made >= number then
  if made > number then return { whole(NOW), {} } end
  local ends = NOW + ttl
  for id, fence in string.gmatch(known, ' (%S+) (%d+)') do
    local task = key(id)
    local there = read(id, 's', 'f', 'a', 'b', 'm', 'p', 't', 'e')
    if there[1] == 'r' and there[2] == fence and there[5] and there[6] and numbers(there[3], there[4], there[7]) then
      redis.call('HSET', task, 'u', whole(ends))
      add(TAG .. ':leases', ends, id)
      give(id, fence, tonumber(there[3]), unpack(there, 4, 8))
    end
  end
  write()
  return { whole(NOW), leased }
end

local function answer()
  local words = { whole(number) }
  for n = 1, #leased, 8 do
    words[#words + 1], words[#words + 2] = leased[n], leased[n + 1]
  end
  -- Who has heard an answer does not ask for it again, and whose answer was empty lost nothing.
  if again or #leased > 0 then
    redis.call('SET', call, table.concat(words, ' '), 'PX', 600000)
  end
  return { whole(NOW), leased }
end

local last = NOW * STEP + STEP - 1
local heads, room = {}, {}
local i = 7
while i <= #ARGV do
  local task_type, most, cluster, lanes = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  if cluster >= 0 then
    local running = tonumber(redis.call('HGET', N, 'r ' .. task_type) or 0)
    most = math.max(0, math.min(most, cluster - running))
  end
  room[task_type] = most
  local look = math.min(most, max)
  for l = i + 4, i + 3 + lanes do
    local lane = ARGV[l]
    if look > 0 then
      local due = redis.call('ZRANGE', lane_key(lane), '-inf', last, 'BYSCORE', 'LIMIT', 0, look, 'WITHSCORES')
      for d = 1, #due, 2 do
        heads[#heads + 1] = { id = due[d], score = tonumber(due[d + 1]), lane = lane, of = task_type }
      end
    end
  end
  i = i + 4 + lanes
end
-- The number's low bits stand in for it, and the id decides between two that share them.
table.sort(heads, function(a, b)
  if a.score ~= b.score then return a.score < b.score end
  return a.id < b.id
end)
local taken = {}
for _, head in ipairs(heads) do
  if #taken >= max then break end
  if room[head.of] > 0 then
    room[head.of] = room[head.of] - 1
    taken[#taken + 1] = head
  end
end
local rows, bytes = {}, 0
for _, head in ipairs(taken) do
  if bytes > MOST then break end
  local there = read(head.id, 's', 'a', 'm', 'p', 't', 'e', 'l', 'o', 'u', 'q', 'z')
  remove(lane_key(head.lane), head.id)
  -- A task that somebody deleted by hand leaves only its place in the lane.
  if there[1] == 'p' and not (there[3] and there[4] and sound(there[7])
    and tonumber(there[2]) and tonumber(there[5]) and tonumber(there[8])
    and tonumber(there[9]) and tonumber(there[10]) and tonumber(there[11])) then
    condemn(head.id, 'it lacks what an attempt needs')
  elseif there[1] == 'p' and there[7] == head.lane then
    rows[#rows + 1] = { head.id, there }
    bytes = bytes + #there[4]
  end
end
if #taken == 0 then return answer() end
local fence = #rows > 0 and redis.call('HINCRBY', N, 'fence', #rows) - #rows
for _, row in ipairs(rows) do
  local id, there = row[1], row[2]
  fence = fence + 1
  local attempt, ends = tonumber(there[2]) + 1, NOW + ttl
  redis.call('HSET', key(id), 's', 'r', 'a', attempt, 'f', whole(fence), 'u', whole(ends),
    'b', whole(NOW), 'n', node)
  add(TAG .. ':leases', ends, id)
  move(id, there[7], 'p', 'r', tonumber(there[8]))
  give(id, whole(fence), attempt, whole(NOW), unpack(there, 3, 6))
end
write()
return answer()
