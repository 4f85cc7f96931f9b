-- ARGV: queue, then for each attempt the id, fencing token, outcome (c completed, p retry, f failed,
-- x cancelled, b released, l lost and not charged, d its record is damaged), time until it is due again,
-- result or error, and what ran it (JSON, or nothing). Returns the time, and for each attempt the state of
-- the task (d if its record is damaged), its route, and 1 if this queue had applied the outcome before and
-- did not get the answer; empty strings if the token is not valid.
local me = string.sub(FROM, -8)
local answers = {}
for i = 2, #ARGV, 6 do
  local id, fence, outcome = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local after, text, executed_by = tonumber(ARGV[i + 3]), ARGV[i + 4], ARGV[i + 5]
  local task = key(id)
  local there = read(id, 's', 'f', 'l', 'o', 'q', 'a', 'k', 'z', 'g', 't', 'u', 'b', 'n', 'm', 'v', 'y')
  local route = valid_route(there[3])
  -- A mark that no other outcome of this task has.
  local mark = fence .. ' ' .. me .. outcome .. #text .. ' ' .. string.sub(text, -8)
  if there[1] ~= 'r' or there[2] ~= fence then
    local repeated = there[9] == mark and route
    answers[#answers + 1] = repeated and { there[1], route, '1' } or { '', '', '' }
  elseif outcome == 'd' then
    answers[#answers + 1] = { 'd', fail_damaged(id, text), '' }
  elseif not (route and there[13] and there[14] and are_numbers(there[4], there[5], there[6], there[8])
    and are_numbers(there[10], there[11], there[12])) then
    answers[#answers + 1] = { 'd', fail_damaged(id, 'it lacks fields that finishing needs'), '' }
  else
    local state = outcome
    if outcome == 'p' or outcome == 'b' or outcome == 'l' then
      -- A task whose cancellation was requested is not retried.
      state = there[7] and 'x' or 'p'
    end
    local at = state == 'p' and NOW + after or NOW
    local set = { 's', state, 'u', integer(at), 'g', mark }
    local function also(field, value) set[#set + 1] = field; set[#set + 1] = value end
    local losses = number_of(there[15]) or 0
    if outcome == 'b' or outcome == 'l' then also('a', math.max(0, tonumber(there[6]) - 1)) end
    if outcome == 'l' then
      losses = losses + 1
      also('v', losses)
    end
    if outcome ~= 'b' and executed_by ~= '' then also('w', executed_by) end
    if outcome == 'c' then also('r', text)
    elseif outcome == 'p' or outcome == 'f' or outcome == 'l' then also('e', text) end
    if state == 'p' then
      enqueue(id, backlog_of(route, losses, there[16]), at, tonumber(there[5]))
    else
      also('z', tonumber(there[8]) + 1)
      index_ended(id, state, tonumber(there[4]), there[16])
    end
    redis.call('HSET', task, unpack(set))
    if there[7] then redis.call('HDEL', task, 'k') end
    if outcome ~= 'b' and executed_by == '' then redis.call('HDEL', task, 'w') end
    remove(TAG .. ':leases', id)
    record_transition(id, route, 'r', state, tonumber(there[4]))
    answers[#answers + 1] = { state, route, '' }
  end
end
write()
return { integer(NOW), answers }
