-- ARGV: queue, the age since the end, how many. Returns how many tasks were purged.

-- After an hour without a query of expired leases, that query first decides how much of the time counts.
if LOOKED > 0 and NOW - LOOKED > 3600000 then return 0 end
local limit = tonumber(ARGV[3])

-- Purges a task, which is in this set.
local function purge(id, set)
  local task = key(id)
  local there = read(id, 's', 'l', 'o', 'y', 'u')
  local state, y = there[1], there[4]
  remove(TAG .. set, id)
  -- A task that has not ended is in this set by mistake.
  if state == 'p' or state == 'r' then return end
  local _, ttl = nil, 0
  if y then _, ttl = parse_options(y) end
  if set == ':ended' and (ttl or 0) > 0 and NOW < (number_of(there[5]) or 0) + ttl then
    -- An earlier version has put it here.
    add(TAG .. ':kept', number_of(there[5]) - IDLE + ttl, id)
    return
  end
  -- The counters of a damaged record are left to the reconciliation.
  if state and valid_route(there[2]) then record_transition(id, there[2], state, nil, number_of(there[3])) end
  remove(TAG .. ':all', id)
  if state == 'f' or state == 'x' then remove(TAG .. ':dead:' .. state, id) end
  if y then
    remove(TAG .. (set == ':ended' and ':kept' or ':ended'), id)
    each_index(y, function(entry)
      remove(TAG .. ':index:' .. entry, id)
      indexed[entry] = false
    end)
  end
  redis.call('UNLINK', task)
end

local function old(set, till)
  return redis.call('ZRANGE', TAG .. set, '-inf', integer(till), 'BYSCORE', 'LIMIT', 0, limit)
end
local kept, ended = old(':kept', NOW - IDLE), old(':ended', NOW - IDLE - tonumber(ARGV[2]))
-- Neither set waits for the end of the other.
local of_kept = math.min(#kept, math.max(math.ceil(limit / 2), limit - #ended))
local of_ended = math.min(#ended, limit - of_kept)
for n = 1, of_kept do purge(kept[n], ':kept') end
for n = 1, of_ended do purge(ended[n], ':ended') end
write()
return of_kept + of_ended
