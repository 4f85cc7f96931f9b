-- ARGV: queue, name, expected version. Returns 1 if the schedule was removed.
local name = ARGV[2]
if redis.call('HGET', key(name), 'v') ~= ARGV[3] then return 0 end
redis.call('DEL', key(name))
redis.call('ZREM', NAMES, name)
redis.call('ZREM', DUE, name)
return 1
