-- ARGV: queue, name, expected version (nothing if there must be none), what it is, its record, when it is
-- due (or nothing), how many schedules there may be.
-- Returns the new version; `changed` or `full`.
local name = ARGV[2]
local there = redis.call('HGET', key(name), 'v') or ''
if there ~= ARGV[3] then return 'changed' end
if there == '' and redis.call('ZCARD', NAMES) >= tonumber(ARGV[7]) then return 'full' end
local version = new_version()
redis.call('HSET', key(name), 'v', version, 's', ARGV[4], 'r', ARGV[5])
redis.call('ZADD', NAMES, 0, name)
set_due(name, ARGV[6])
return version
