-- ARGV: queue, scope, its limits (nothing to remove them), the expected version of all limits, how many scopes may
-- have limits. See read.lua. Returns the new version; `changed` or `full`.
local LIMITS, VERSION = KEYS[1] .. ':limits', KEYS[1] .. ':limits:version'
if (redis.call('GET', VERSION) or '0') ~= ARGV[4] then return 'changed' end
if ARGV[3] == '' then
  redis.call('HDEL', LIMITS, ARGV[2])
else
  if redis.call('HEXISTS', LIMITS, ARGV[2]) == 0 and redis.call('HLEN', LIMITS) >= tonumber(ARGV[5]) then return 'full' end
  redis.call('HSET', LIMITS, ARGV[2], ARGV[3])
end
return string.format('%d', redis.call('INCR', VERSION))
