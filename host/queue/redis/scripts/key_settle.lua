-- ARGV: queue, then for each unique key `TYPE KEY`, the token of a reservation, and what becomes of that: c
-- confirmed, because its task is stored; d deleted, because its task is not, or has ended; l looked at again
-- later. Without effect on a reservation that was replaced.
local UNIQUE, HELD = TAG .. ':unique', TAG .. ':held'
-- How long until a key is looked at again, at least. It becomes longer with the age of the task.
local LOOK = 10000
for i = 2, #ARGV, 3 do
  local name, token, what = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local held = call('HGET', UNIQUE, name) or ''
  local id, its_token, since, till = string.match(held, '^(%S+) (%S+) (%d+) (%d+) %d$')
  if its_token ~= token then
    -- It belongs to another task now.
  elseif what == 'c' then
    call('HSET', UNIQUE, name, table.concat({ id, token, since, till, '1' }, ' '))
  elseif what == 'd' then
    call('HDEL', UNIQUE, name)
    call('ZREM', HELD, name)
  else
    call('ZADD', HELD, format('%d', math.max(tonumber(till), NOW + math.max(LOOK, NOW - tonumber(since)))), name)
  end
end
