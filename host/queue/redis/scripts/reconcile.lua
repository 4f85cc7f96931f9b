-- ARGV: queue, how many. Reconciles sets and counters with the tasks, a part of them with each call: adds
-- tasks to sets that have lost them, removes entries of tasks that are in another state or do not exist,
-- fails tasks whose record is damaged, and counts.
-- Returns how many entries were repaired, and 1 at the end of a pass.
--
-- A pass counts over many calls, in the order of submission, while tasks change. Field `pass` of TAG:n is
-- the order up to which it has counted, and TAG:pass has the counts up to there; a script that changes a
-- task before that order changes TAG:pass as well. So at the end of a pass TAG:pass has the true counts, and
-- the counters are set to them. They are only used if they match the sizes of the sets, since nodes of an
-- older version do not update TAG:pass.
local limit = tonumber(ARGV[2])
local ALL, COUNT, INDEX = TAG .. ':all', TAG .. ':pass', TAG .. ':index'
local SETS = {
  { TAG .. ':leases', 'r' }, { TAG .. ':ended', 'cfx' }, { TAG .. ':dead:f', 'f' }, { TAG .. ':dead:x', 'x' },
  { TAG .. ':kept', 'cfx' }, { TAG .. ':start', 'p' }, { TAG .. ':late', 'p' },
}
local repaired, counts = 0, {}

local function ensure(set, score, id)
  if not redis.call('ZSCORE', set, id) then
    add(set, score, id)
    repaired = repaired + 1
  end
end

-- Ensures that a pending task is where leases and expire.lua find it.
local function ensure_waiting(id, route, at, number, losses, y, begun)
  local by = y and not begun and parse_options(y) or 0
  if by > 0 and not redis.call('ZSCORE', TAG .. ':late', id) then ensure(TAG .. ':start', by, id) end
  -- Once it can no longer begin in time, it may have left its backlog.
  if by > 0 and by < NOW then return end
  local backlog = backlog_of(route, losses, y)
  ensure(backlog_key(backlog), at * STEP + number % STEP, id)
  dirty[backlog] = true
end

-- Ensures that an ended task is purged when it has to be. A task without a time of its end ended now.
local function ensure_ended(id, at, y)
  local _, ttl = nil, 0
  if y then _, ttl = parse_options(y) end
  if (ttl or 0) == 0 then return ensure(TAG .. ':ended', at or NOW, id) end
  ensure(TAG .. ':kept', (at or NOW) + ttl, id)
  if redis.call('ZSCORE', TAG .. ':ended', id) then
    -- An earlier version has put it there.
    remove(TAG .. ':ended', id)
    repaired = repaired + 1
  end
end

local function check(id)
  local there = read(id, 's', 'l', 'u', 'q', 'o', 't', 'a', 'z', 'm', 'f', 'b', 'n', 'v', 'y')
  local state, route, at = there[1], valid_route(there[2]), number_of(there[3])
  if not state and redis.call('EXISTS', key(id)) == 0 then
    remove(ALL, id)
    repaired = repaired + 1
    return
  end
  local ended = state == 'c' or state == 'f' or state == 'x'
  local runs, y = state == 'r' and there[12] and are_numbers(there, 10, 11), there[14]
  if not ended and not (route and there[9] and are_numbers(there, 3, 8) and (state == 'p' or runs)
    and (not y or parse_options(y)) and redis.call('HEXISTS', key(id), 'p') == 1) then
    state, route = 'f', fail_damaged(id, 'it lacks a field')
  elseif state == 'p' then
    ensure_waiting(id, route, at, tonumber(there[4]), there[13], y, there[11])
  elseif state == 'r' then
    ensure(TAG .. ':leases', at, id)
  else
    ensure_ended(id, at, y)
    local order = number_of(there[5])
    if state ~= 'c' and order then ensure(TAG .. ':dead:' .. state, order, id) end
  end
  if y and number_of(there[5]) then
    each_index(y, function(entry)
      ensure(INDEX .. ':' .. entry, number_of(there[5]), id)
      if not indexed[entry] and not redis.call('ZSCORE', INDEX, entry) then
        indexed[entry] = true
        repaired = repaired + 1
      end
    end)
  end
  local field = state .. ' ' .. type_of(route or 'unknown')
  counts[field] = (counts[field] or 0) + 1
end

-- Removes the entries of tasks in other states from a part of a set. Returns where the next part begins, or
-- nothing at the end, and how many entries it has read.
local function sweep(set, states, from)
  local found = redis.call('ZRANGE', set, from, from + limit - 1)
  for _, id in ipairs(found) do
    local state = read(id, 's')[1]
    if not state or not string.find(states, state, 1, true) then
      remove(set, id)
      repaired = repaired + 1
    end
  end
  return #found == limit and from + limit or nil, #found
end

-- Returns where the last call has stopped.
local function position(field)
  local which, from = string.match(redis.call('HGET', N, field) or '', '^(%d+) (%d+)$')
  return tonumber(which) or 1, tonumber(from) or 0
end

-- Removes wrong entries from a part of one set. Backlogs are left out, since a lease removes their wrong
-- entries.
local function remove_strays()
  local which, from = position('swept')
  which = SETS[which] and which or 1
  from = sweep(SETS[which][1], SETS[which][2], from)
  if not from then which = which % #SETS + 1 end
  redis.call('HSET', N, 'swept', which .. ' ' .. integer(from or 0))
end

-- The same for the sets of groups and tags, as many as have so many entries.
local function sweep_index()
  local which, from = position('swept-index')
  local left = limit
  while left > 0 do
    local entry = redis.call('ZRANGE', INDEX, which - 1, which - 1)[1]
    if not entry then
      which, from = 1, 0
      break
    end
    local till, read_entries = sweep(INDEX .. ':' .. entry, 'prcfx', from)
    indexed = indexed or {}
    indexed[entry] = indexed[entry] or false
    left = left - 1 - read_entries
    from = till or 0
    if not till then which = which + 1 end
  end
  redis.call('HSET', N, 'swept-index', which .. ' ' .. integer(from))
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
  local kept = redis.call('ZCARD', TAG .. ':kept')
  if has(':all', sum.p + sum.r + ended) and has(':leases', sum.r) and has(':ended', ended - kept)
    and has(':dead:f', sum.f) and has(':dead:x', sum.x) then
    for field, number in pairs(read_counts(N)) do
      if not found[field] then
        redis.call('HDEL', N, field)
        repaired = repaired + 1
      end
    end
    found['open'] = sum.p + sum.r
    for field, number in pairs(found) do
      if tonumber(redis.call('HGET', N, field) or 0) ~= number then
        redis.call('HSET', N, field, number)
        repaired = repaired + 1
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
    check(some[i])
  end
  -- Tasks may share an order if the clock was set back. They are counted together.
  for _, id in ipairs(redis.call('ZRANGE', ALL, last, last, 'BYSCORE')) do
    if not seen[id] then check(id) end
  end
  for field, number in pairs(counts) do redis.call('HINCRBY', COUNT, field, number) end
  redis.call('HSET', N, 'pass', last)
end
remove_strays()
if redis.call('EXISTS', INDEX) == 1 then sweep_index() end
write()
return { repaired, #some == 0 and 1 or 0 }
