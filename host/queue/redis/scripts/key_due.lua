-- ARGV: queue, how many. Returns unique keys whose task may have ended: for each `TYPE KEY`, the id of the
-- task, the token of its reservation, 1 if the task is known to be stored, 1 if its time is not over, and how
-- long ago it was reserved. An entry that cannot be read is deleted.
local UNIQUE, HELD = TAG .. ':unique', TAG .. ':held'
local answer = {}
for _, name in ipairs(call('ZRANGE', HELD, '-inf', format('%d', NOW), 'BYSCORE', 'LIMIT', 0, ARGV[2])) do
  local held = call('HGET', UNIQUE, name) or ''
  local id, token, since, till, stored = string.match(held, '^(%S+) (%S+) (%d+) (%d+) (%d)$')
  if id then
    answer[#answer + 1] = {
      name, id, token, stored, NOW < tonumber(till) and '1' or '0', format('%d', math.max(0, NOW - tonumber(since))),
    }
  else
    call('HDEL', UNIQUE, name)
    call('ZREM', HELD, name)
  end
end
return answer
