-- ARGV: from, how many tasks may be open, the percentage of maxmemory that submissions leave free, 1 to
-- write whatever happens (so that replicas can be waited for), then for each task id, lane, m, p.
-- Answers a letter a task: n new, e existing, c conflict, f full, m no memory left for it.
--
-- The one script that Redis itself refuses when its memory is full: all others make room or are needed to.
local known = redis.call('HMGET', N, 'open', 'number', 'order', 'room', 'shards')
local having, number, order = tonumber(known[1] or 0), tonumber(known[2] or 0), tonumber(known[3] or 0)
local limit, spare = tonumber(ARGV[2]), tonumber(ARGV[3])
local answers, fresh = {}, 0
-- By time, so that shards can be listed as one; by steps within a millisecond; and not far ahead of
-- a clock that was set back.
local base = NOW * STEP
if order < base or order > base + 10 * STEP then order = base - 1 end

-- How many bytes this shard's submissions may take until the next look: its share of what there was room
-- for when somebody looked. A look takes as long as a task, so what was found counts for a tenth of a
-- second.
local looked, left = string.match(known[4] or '', '^(%d+) (%d+)$')
looked, left = tonumber(looked or 0), tonumber(left or 0)
local room -- all that there is, after a look

local function look()
  looked, room = NOW, 2 ^ 52
  local info = redis.pcall('INFO', 'memory')
  if type(info) == 'string' then
    local function says(name) return tonumber(string.match(info, '\n' .. name .. ':(%d+)') or 0) end
    local most = says('maxmemory')
    if most > 0 then
      local used = says('used_memory') - says('mem_not_counted_for_evict')
      room = math.max(0, math.floor(most * (100 - spare) / 100) - used)
    end
  end
  -- A user who may not ask has only the bound that Redis itself keeps.
  left = math.floor(room / tonumber(known[5] or 1))
end

-- What a record and its places take besides what was given.
local RECORD = 512

local function has_room(bytes)
  if not room and left < bytes then look() end
  if (room or left) < bytes then return false end
  left = math.max(0, left - bytes)
  if room then room = room - bytes end
  return true
end

if NOW - looked > 100 or NOW < looked then look() end
for i = 5, #ARGV, 4 do
  local id, lane, m, p = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local task = key(id)
  local there = redis.pcall('HMGET', task, 'm', 'p', 's')
  if there.err then
    answers[#answers + 1] = 'c'
  elseif there[1] or there[3] then
    answers[#answers + 1] = (there[1] == m and there[2] == p) and 'e' or 'c'
  elseif having + fresh >= limit then
    answers[#answers + 1] = 'f'
  elseif not has_room(RECORD + #id + #m + #p) then
    answers[#answers + 1] = 'm'
  else
    fresh, number, order = fresh + 1, number + 1, order + 1
    redis.call('HSET', task, 'm', m, 'p', p, 'l', lane, 'o', whole(order), 'q', whole(number),
      't', whole(NOW), 's', 'p', 'u', whole(NOW), 'a', 0, 'z', 0)
    wait(id, lane, NOW, number)
    add(TAG .. ':all', order, id)
    move(id, lane, nil, 'p', order)
    answers[#answers + 1] = 'n'
  end
end
if fresh > 0 or ARGV[4] == '1' then
  redis.call('HSET', N, 'number', whole(number), 'order', whole(order), 'room', whole(looked) .. ' ' .. whole(left))
  write()
end
return table.concat(answers)
