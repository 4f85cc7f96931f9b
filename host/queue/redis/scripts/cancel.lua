-- ARGV: queue, id. Returns the state in which the task was (k if its cancellation had been requested
-- before), and its route; nothing if there is no such task.
local id, task = ARGV[2], key(ARGV[2])
local there = read(id, 's', 'l', 'o', 'k', 'v', 'y')
local state, route = there[1], there[2]
if not state then return {} end
if not (valid_route(route) and number_of(there[3])) then
  route = valid_route(route) or 'unknown'
  if state == 'p' or state == 'r' then
    state, route = 'f', fail_damaged(id, 'it lacks fields that cancelling needs')
  end
elseif state == 'p' then
  redis.call('HSET', task, 's', 'x', 'u', integer(NOW))
  redis.call('HINCRBY', task, 'z', 1)
  dequeue(id, backlog_of(route, there[5], there[6]))
  if there[6] then forget_start(id) end
  index_ended(id, 'x', tonumber(there[3]), there[6])
  record_transition(id, route, 'p', 'x', tonumber(there[3]))
elseif state == 'r' then
  if there[4] then return { 'k', route } end
  redis.call('HSET', task, 'k', 1)
  emit(id, type_of(route), 'k')
end
write()
return { state, route }
