-- ARGV: from, how old an ending must be, how many. Answers how many tasks were forgotten.
-- Unless it is known how much of the time counts.
if LOOKED > 0 and NOW - LOOKED > 3600000 then return 0 end
local old = redis.call('ZRANGE', TAG .. ':ended', '-inf', whole(NOW - IDLE - tonumber(ARGV[2])), 'BYSCORE', 'LIMIT', 0, ARGV[3])
for _, id in ipairs(old) do
  local task = key(id)
  local there = read(id, 's', 'l', 'o')
  local state = there[1]
  remove(TAG .. ':ended', id)
  -- What has not ended is in this set by mistake.
  if state ~= 'p' and state ~= 'r' then
    -- Where the record is damaged, the sweep counts anew.
    if state and sound(there[2]) then move(id, there[2], state, nil, tonumber(there[3])) end
    remove(TAG .. ':all', id)
    if state == 'f' or state == 'x' then remove(TAG .. ':dead:' .. state, id) end
    redis.call('UNLINK', task)
  end
end
write()
return #old
