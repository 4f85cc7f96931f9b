-- Ends the pause of a task type (see pause.lua). ARGV: queue, type. Returns 1 if it was paused.
local PAUSED = KEYS[1] .. ':paused'
local resumed = redis.call('HDEL', PAUSED, ARGV[2])
if resumed == 1 then redis.call('HINCRBY', PAUSED, '', 1) end
return resumed
