-- ARGV: from, how many. The sweep: looks at some tasks, a little further with every call, and puts back
-- those that their sets have lost; drops places of tasks that are elsewhere or gone; ends those whose
-- record is damaged; and counts.
-- Answers how much it mended, and 1 when it has come to the end.
--
-- It counts over many calls, in the order of submission, while tasks change. Field `pass` says how far it
-- is, and TAG:pass what it has counted up to there; a script that changes a task which lies behind changes
-- TAG:pass too. So there is the truth when nothing lies ahead any more, and the counters become it. It is
-- believed only where it agrees with the sets: nodes of an older version do not keep it in step.
local limit = tonumber(ARGV[2])
local ALL, COUNT = TAG .. ':all', TAG .. ':pass'
local PLACES = {
  { TAG .. ':leases', 'r' }, { TAG .. ':ended', 'cfx' }, { TAG .. ':dead:f', 'f' }, { TAG .. ':dead:x', 'x' },
}
local mended, truth = 0, {}

local function belongs(set, score, id)
  if not redis.call('ZSCORE', set, id) then
    add(set, score, id)
    mended = mended + 1
  end
end

local function look_at(id)
  local there = read(id, 's', 'l', 'u', 'q', 'o', 't', 'a', 'z', 'm', 'f', 'b', 'n', 'v')
  local state, lane, at = there[1], sound(there[2]), tonumber(there[3])
  if not state and redis.call('EXISTS', key(id)) == 0 then
    remove(ALL, id)
    mended = mended + 1
    return
  end
  local ended = state == 'c' or state == 'f' or state == 'x'
  local runs = state == 'r' and there[12] and numbers(there[10], there[11])
  if not ended and not (lane and there[9] and numbers(unpack(there, 3, 8)) and (state == 'p' or runs)
    and redis.call('HEXISTS', key(id), 'p') == 1) then
    state, lane = 'f', condemn(id, 'it lacks a field')
  elseif state == 'p' then
    local line = line_of(lane, there[13])
    belongs(lane_key(line), at * STEP + tonumber(there[4]) % STEP, id)
    touched[line] = true
  elseif state == 'r' then
    belongs(TAG .. ':leases', at, id)
  else
    -- One that does not say when it ended, ended now.
    belongs(TAG .. ':ended', at or NOW, id)
    local order = tonumber(there[5])
    if state ~= 'c' and order then belongs(TAG .. ':dead:' .. state, order, id) end
  end
  local field = state .. ' ' .. type_of(lane or 'unknown')
  truth[field] = (truth[field] or 0) + 1
end

-- A part of one set, from where the last call stopped. Lanes are not looked through: who leases from
-- one drops what does not belong there.
local function look_for_strays()
  local which, from = string.match(redis.call('HGET', N, 'strays') or '1 0', '(%d) (%d+)')
  which, from = tonumber(which), tonumber(from)
  local set, states = unpack(PLACES[which])
  local found = redis.call('ZRANGE', set, from, from + limit - 1)
  for _, id in ipairs(found) do
    local state = read(id, 's')[1]
    if not state or not string.find(states, state, 1, true) then
      remove(set, id)
      mended = mended + 1
    end
  end
  from = from + limit
  if #found < limit then which, from = which % #PLACES + 1, 0 end
  redis.call('HSET', N, 'strays', which .. ' ' .. whole(from))
end

local function read_counts(hash)
  local all, counts = redis.call('HGETALL', hash), {}
  for i = 1, #all, 2 do
    if string.find(all[i], ' ', 1, true) and all[i + 1] ~= '0' then counts[all[i]] = tonumber(all[i + 1]) or 0 end
  end
  return counts
end

local function conclude()
  local found, sum = read_counts(COUNT), { p = 0, r = 0, c = 0, f = 0, x = 0 }
  for field, number in pairs(found) do
    local state = string.sub(field, 1, 1)
    sum[state] = (sum[state] or 0) + number
  end
  local function has(set, number) return redis.call('ZCARD', TAG .. set) == number end
  local ended = sum.c + sum.f + sum.x
  if has(':all', sum.p + sum.r + ended) and has(':leases', sum.r) and has(':ended', ended)
    and has(':dead:f', sum.f) and has(':dead:x', sum.x) then
    for field, number in pairs(read_counts(N)) do
      if not found[field] then
        redis.call('HDEL', N, field)
        mended = mended + 1
      end
    end
    found['open'] = sum.p + sum.r
    for field, number in pairs(found) do
      if tonumber(redis.call('HGET', N, field) or 0) ~= number then
        redis.call('HSET', N, field, number)
        mended = mended + 1
      end
    end
  end
  redis.call('DEL', COUNT)
  redis.call('HDEL', N, 'pass')
end

local at = redis.call('HGET', N, 'pass')
if not at then
  at = '-1'
  redis.call('DEL', COUNT)
end
local some = redis.call('ZRANGE', ALL, '(' .. at, '+inf', 'BYSCORE', 'LIMIT', 0, limit, 'WITHSCORES')
if #some == 0 then
  conclude()
else
  local last, seen = some[#some], {}
  for i = 1, #some, 2 do
    seen[some[i]] = true
    look_at(some[i])
  end
  -- Tasks may share an order if the clock was set back. They are passed together.
  for _, id in ipairs(redis.call('ZRANGE', ALL, last, last, 'BYSCORE')) do
    if not seen[id] then look_at(id) end
  end
  for field, number in pairs(truth) do redis.call('HINCRBY', COUNT, field, number) end
  redis.call('HSET', N, 'pass', last)
end
look_for_strays()
write()
return { mended, #some == 0 and 1 or 0 }
