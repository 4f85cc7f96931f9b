-- ARGV: from, id. Answers the state that the task was in and its lane; nothing when there is none.
local id, task = ARGV[2], key(ARGV[2])
local there = redis.call('HMGET', task, 's', 'l', 'q', 'o')
local state, lane = there[1], there[2]
if not state then return {} end
if state == 'f' or state == 'x' then
  redis.call('HSET', task, 's', 'p', 'u', whole(NOW), 'a', 0, 'z', 0)
  redis.call('HDEL', task, 'b')
  remove(TAG .. ':ended', id)
  remove(TAG .. ':dead:' .. state, id)
  wait(id, lane, NOW, tonumber(there[3]))
  move(id, lane, state, 'p', tonumber(there[4]))
end
write()
return { state, lane }
