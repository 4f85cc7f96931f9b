-- ARGV: queue, name. Returns version, what it is and its record; nothing if there is no such schedule.
local there = redis.call('HMGET', key(ARGV[2]), 'v', 's', 'r')
if not there[1] then return {} end
return { there[1], there[2] or '', there[3] or '' }
