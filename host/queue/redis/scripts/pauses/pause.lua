-- Pauses a task type. KEYS are as in the other scripts.
--
-- TAG:paused  hash, in the first shard: under each paused type the time since when it is, a space and the
--             reason; under '' how often the hash was changed
--
-- ARGV: queue, type, how many types may be paused, reason. Returns since when the type is paused; nothing if
-- too many others are.
local PAUSED = KEYS[1] .. ':paused'
local since = string.match(redis.call('HGET', PAUSED, ARGV[2]) or '', '^%d+')
if not since then
  local all = redis.call('HGETALL', PAUSED)
  local count = #all / 2 - redis.call('HEXISTS', PAUSED, '')
  if count >= tonumber(ARGV[3]) then return false end
  local clock = redis.call('TIME')
  since = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
end
redis.call('HSET', PAUSED, ARGV[2], since .. ' ' .. ARGV[4])
redis.call('HINCRBY', PAUSED, '', 1)
return since
