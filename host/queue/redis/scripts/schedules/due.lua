-- ARGV: queue, how many to return, how many bytes to return.
-- Returns the time, when the next schedule is due (or nothing), and name, version, what it is and its
-- record of each that is due. Others do not get these for a second: a node that lives has dealt with them
-- by then.
local CLAIM_MS = 1000
local now = wall()
local names = redis.call('ZRANGE', DUE, '-inf', integer(now), 'BYSCORE', 'LIMIT', 0, tonumber(ARGV[2]))
local answer, bytes = { integer(now), '' }, 0
for _, name in ipairs(names) do
  local there = redis.call('HMGET', key(name), 'v', 's', 'r')
  if there[1] then
    redis.call('ZADD', DUE, integer(now + CLAIM_MS), name)
    for _, value in ipairs({ name, there[1], there[2] or '', there[3] or '' }) do
      answer[#answer + 1] = value
      bytes = bytes + #value
    end
  else
    redis.call('ZREM', DUE, name)
  end
  if bytes >= tonumber(ARGV[3]) then break end
end
local first = redis.call('ZRANGE', DUE, 0, 0, 'WITHSCORES')
if first[2] then answer[2] = integer(tonumber(first[2])) end
return answer
