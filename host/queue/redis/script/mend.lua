-- ARGV: from, how many. Looks at some tasks, a little further with every call, and puts back those
-- that their set has lost; drops the places of tasks that are gone. Answers how many it mended.
local at = redis.call('HGET', N, 'mend') or '-inf'
local some = redis.call('ZRANGE', TAG .. ':all', '(' .. at, '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[2], 'WITHSCORES')
local mended = 0
for i = 1, #some, 2 do
  local id = some[i]
  local there = redis.call('HMGET', key(id), 's', 'l', 'u', 'q', 'o')
  local state = there[1]
  local set, score
  if state == 'p' then
    set, score = lane_key(there[2]), tonumber(there[3]) * STEP + tonumber(there[4]) % STEP
  elseif state == 'r' then
    set, score = TAG .. ':leases', tonumber(there[3])
  elseif state then
    set, score = TAG .. ':ended', tonumber(there[3])
  end
  if not state then
    remove(TAG .. ':all', id)
    mended = mended + 1
  elseif not redis.call('ZSCORE', set, id) then
    add(set, score, id)
    mended = mended + 1
  end
end
write()
if #some > 0 then redis.call('HSET', N, 'mend', some[#some]) else redis.call('HDEL', N, 'mend') end
return mended
