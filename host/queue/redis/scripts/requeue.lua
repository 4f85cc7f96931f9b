-- ARGV: queue, id. Returns the state in which the task was (d if its record is damaged, so that it is not
-- requeued) and its route; nothing if there is no such task.
local id, task = ARGV[2], key(ARGV[2])
local there = read(id, 's', 'l', 'q', 'o', 'm', 'y')
local state, route = there[1], there[2]
if not state then return {} end
local is_valid = valid_route(route) and are_numbers(there, 3, 4) and there[5] and redis.call('HEXISTS', task, 'p') == 1
  and (not there[6] or parse_options(there[6]))
if (state == 'f' or state == 'x') and not is_valid then return { 'd', valid_route(route) or 'unknown' } end
if state == 'f' or state == 'x' then
  redis.call('HSET', task, 's', 'p', 'u', integer(NOW), 'a', 0, 'z', 0)
  redis.call('HDEL', task, 'b', 'd', 'v')
  remove(TAG .. ':ended', id)
  if there[6] then
    remove(TAG .. ':kept', id)
    -- It need not begin by any time now.
    redis.call('HSET', task, 'y', (string.gsub(there[6], '^%d+', '0')))
  end
  remove(TAG .. ':dead:' .. state, id)
  enqueue(id, backlog_of(route, nil, there[6]), NOW, tonumber(there[3]))
  record_transition(id, route, state, 'p', tonumber(there[4]))
end
write()
return { state, route }
