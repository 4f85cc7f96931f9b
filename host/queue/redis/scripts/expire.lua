-- ARGV: queue, how many. Ends pending tasks as failed of which no attempt has begun by the time that their
-- options say. Returns the id and the type of each.
local answer, limit, now = {}, tonumber(ARGV[2]), '(' .. format('%d', NOW)
local careful = library()

local function expire(id, set)
  call('ZREM', set, id)
  local task = careful.state_of(id) == 'p' and careful.read(id)
  if not task then
    if careful.state_of(id) == 'p' then careful.fail_damaged(id, 'it lacks what ending it needs') end
  elseif not task.again then
    careful.unplace(id, task)
    careful.finish(id, task.order, task.type, 'f', careful.ttl_of(task),
      '{"error":"no attempt had begun by start_by_ms","class":"expired"}\n')
    careful.closed()
    careful.emit(id .. careful.tag_of(0, task.options), task.type, 'f')
    answer[#answer + 1] = id
    answer[#answer + 1] = task.type
  end
end

local sets = { TAG .. ':start' }
for _, task_type in ipairs(call('SMEMBERS', TAG .. ':types')) do sets[#sets + 1] = TAG .. ':late:' .. task_type end
for _, set in ipairs(sets) do
  local left = limit - #answer / 2
  if left > 0 then
    for _, id in ipairs(call('ZRANGE', set, '-inf', now, 'BYSCORE', 'LIMIT', 0, left)) do expire(id, set) end
  end
end
careful.write()
return answer
