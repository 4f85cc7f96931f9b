-- ARGV: queue, name, expected version (nothing if it does not matter). Returns 1 if the schedule was
-- removed.
local name = ARGV[2]
local there = redis.call('HGET', key(name), 'v')
if not there or (ARGV[3] ~= '' and there ~= ARGV[3]) then return 0 end
redis.call('DEL', key(name))
redis.call('ZREM', NAMES, name)
redis.call('ZREM', DUE, name)
return 1
