-- ARGV: queue, how many. Ends pending tasks as failed of which no attempt has begun by the time that their
-- options say. Returns the id and the type of each.
local answer, limit = {}, tonumber(ARGV[2])

local function expire(id)
  local task = key(id)
  local there = read(id, 's', 'l', 'o', 'v', 'y', 'b')
  forget_start(id)
  -- A task that an earlier version has leased or ended is in these sets by mistake.
  if there[1] ~= 'p' or there[6] then return end
  if not (valid_route(there[2]) and number_of(there[3]) and there[5] and parse_options(there[5])) then
    return fail_damaged(id, 'it lacks fields that ending it needs')
  end
  redis.call('HSET', task, 's', 'f', 'u', integer(NOW), 'e', 'no attempt had begun by start_by_ms', 'd', 'expired')
  redis.call('HINCRBY', task, 'z', 1)
  dequeue(id, backlog_of(there[2], there[4], there[5]))
  index_ended(id, 'f', tonumber(there[3]), there[5])
  record_transition(id, there[2], 'p', 'f', tonumber(there[3]))
  answer[#answer + 1] = id; answer[#answer + 1] = type_of(there[2])
end

for _, set in ipairs({ ':late', ':start' }) do
  local left = limit - #answer / 2
  if left > 0 then
    local late = redis.call('ZRANGE', TAG .. set, '-inf', '(' .. integer(NOW), 'BYSCORE', 'LIMIT', 0, left)
    for _, id in ipairs(late) do expire(id) end
  end
end
write()
return answer
