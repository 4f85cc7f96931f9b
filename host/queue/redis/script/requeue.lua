-- ARGV: from, id. Answers the state that the task was in (d where its record is damaged, so that it stays
-- in it) and its lane; nothing when there is none.
local id, task = ARGV[2], key(ARGV[2])
local there = read(id, 's', 'l', 'q', 'o', 'm')
local state, lane = there[1], there[2]
if not state then return {} end
local is_sound = sound(lane) and numbers(there[3], there[4]) and there[5] and redis.call('HEXISTS', task, 'p') == 1
if (state == 'f' or state == 'x') and not is_sound then return { 'd', sound(lane) or 'unknown' } end
if state == 'f' or state == 'x' then
  redis.call('HSET', task, 's', 'p', 'u', whole(NOW), 'a', 0, 'z', 0)
  redis.call('HDEL', task, 'b', 'd', 'v')
  remove(TAG .. ':ended', id)
  remove(TAG .. ':dead:' .. state, id)
  wait(id, lane, NOW, tonumber(there[3]))
  move(id, lane, state, 'p', tonumber(there[4]))
end
write()
return { state, lane }
