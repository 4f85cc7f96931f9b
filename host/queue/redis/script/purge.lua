-- ARGV: from, how old an ending must be, how many. Answers how many tasks were forgotten.
local old = redis.call('ZRANGE', TAG .. ':ended', '-inf', whole(NOW - tonumber(ARGV[2])), 'BYSCORE', 'LIMIT', 0, ARGV[3])
for _, id in ipairs(old) do
  local task = key(id)
  local there = redis.call('HMGET', task, 's', 'l')
  if there[1] then move(id, there[2], there[1], nil) end
  remove(TAG .. ':ended', id)
  remove(TAG .. ':all', id)
  if there[1] == 'f' or there[1] == 'x' then remove(TAG .. ':dead:' .. there[1], id) end
  redis.call('UNLINK', task)
end
write()
return #old
