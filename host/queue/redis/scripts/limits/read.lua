-- ARGV: queue, a known version. Limits that are set at run time are in the queue's first shard: TAG:limits is a
-- hash of them by scope (TYPE, TYPE/* or TYPE/GROUP), JSON; TAG:limits:version has a number that changes with
-- each change. Returns the version, and unless it is known scopes and limits in turn.
local TAG = KEYS[1]
local version = redis.call('GET', TAG .. ':limits:version') or '0'
local answer = { version }
if version == ARGV[2] then return answer end
for _, word in ipairs(redis.call('HGETALL', TAG .. ':limits')) do answer[#answer + 1] = word end
return answer
