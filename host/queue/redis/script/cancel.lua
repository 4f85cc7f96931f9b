-- ARGV: from, id. Answers the state that the task was in (k where its end had been asked for before),
-- and its lane; nothing when there is none.
local id, task = ARGV[2], key(ARGV[2])
local there = read(id, 's', 'l', 'o', 'k', 'v')
local state, lane = there[1], there[2]
if not state then return {} end
if not (sound(lane) and numbers(there[3])) then
  lane = sound(lane) or 'unknown'
  if state == 'p' or state == 'r' then
    state, lane = 'f', condemn(id, 'it lacks what cancelling needs')
  end
elseif state == 'p' then
  redis.call('HSET', task, 's', 'x', 'u', whole(NOW))
  redis.call('HINCRBY', task, 'z', 1)
  unwait(id, line_of(lane, there[5]))
  bury(id, 'x', tonumber(there[3]))
  move(id, lane, 'p', 'x', tonumber(there[3]))
elseif state == 'r' then
  if there[4] then return { 'k', lane } end
  redis.call('HSET', task, 'k', 1)
  tell(id, lane, 'k')
end
write()
return { state, lane }
