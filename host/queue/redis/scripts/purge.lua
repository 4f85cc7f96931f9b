-- ARGV: queue, the age since the end, how many. Returns how many tasks were purged.

-- After an hour without a query of expired leases, that query first decides how much of the time counts.
if LOOKED > 0 and NOW - LOOKED > 3600000 then return 0 end
local old = redis.call('ZRANGE', TAG .. ':ended', '-inf', integer(NOW - IDLE - tonumber(ARGV[2])), 'BYSCORE', 'LIMIT', 0, ARGV[3])
for _, id in ipairs(old) do
  local task = key(id)
  local there = read(id, 's', 'l', 'o')
  local state = there[1]
  remove(TAG .. ':ended', id)
  -- A task that has not ended is in this set by mistake.
  if state ~= 'p' and state ~= 'r' then
    -- The counters of a damaged record are left to the reconciliation.
    if state and valid_route(there[2]) then record_transition(id, there[2], state, nil, number_of(there[3])) end
    remove(TAG .. ':all', id)
    if state == 'f' or state == 'x' then remove(TAG .. ':dead:' .. state, id) end
    redis.call('UNLINK', task)
  end
end
write()
return #old
