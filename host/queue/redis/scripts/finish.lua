-- ARGV: queue, then for each attempt the id, fencing token, outcome (c completed, p retry, f failed,
-- x cancelled, b released, l lost and not charged, d its record is damaged), time until it is due again,
-- result or error, and what ran it (JSON, or nothing). Returns the time, and for each attempt the state of
-- the task (d if its record is damaged), its route, and 1 if this queue had applied the outcome before and
-- did not get the answer; empty strings if the token is not valid.
local me = string.sub(FROM, -8)
local now, leases = integer(NOW), TAG .. ':leases'
local answers = {}
for i = 2, #ARGV, 6 do
  local id, fence, outcome = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local after, text, executed_by = tonumber(ARGV[i + 3]), ARGV[i + 4], ARGV[i + 5]
  local task = key(id)
  local there = read(id, 's', 'f', 'l', 'k', 'g', 'n', 'm', 'v', 'y', 'o', 'q', 'a', 'z', 't', 'u', 'b')
  local route = valid_route(there[3])
  -- A mark that no other outcome of this task has.
  local mark = fence .. ' ' .. me .. outcome .. #text .. ' ' .. string.sub(text, -8)
  if there[1] ~= 'r' or there[2] ~= fence then
    local repeated = there[5] == mark and route
    answers[#answers + 1] = repeated and { there[1], route, '1' } or { '', '', '' }
  elseif outcome == 'd' then
    answers[#answers + 1] = { 'd', fail_damaged(id, text), '' }
  elseif not (route and there[6] and there[7] and are_numbers(there, 10, 16)) then
    answers[#answers + 1] = { 'd', fail_damaged(id, 'it lacks fields that finishing needs'), '' }
  else
    local state, order = outcome, tonumber(there[10])
    if outcome == 'p' or outcome == 'b' or outcome == 'l' then
      -- A task whose cancellation was requested is not retried.
      state = there[4] and 'x' or 'p'
    end
    local at = state == 'p' and NOW + after or NOW
    local set = { 's', state, 'u', at == NOW and now or integer(at), 'g', mark }
    local n, losses = 6, there[8]
    if outcome == 'b' or outcome == 'l' then
      set[n + 1], set[n + 2] = 'a', math.max(0, tonumber(there[12]) - 1)
      n = n + 2
    end
    if outcome == 'l' then
      losses = (number_of(losses) or 0) + 1
      set[n + 1], set[n + 2] = 'v', losses
      n = n + 2
    end
    if outcome ~= 'b' and executed_by ~= '' then
      set[n + 1], set[n + 2] = 'w', executed_by
      n = n + 2
    end
    if outcome == 'c' or outcome == 'p' or outcome == 'f' or outcome == 'l' then
      set[n + 1], set[n + 2] = outcome == 'c' and 'r' or 'e', text
      n = n + 2
    end
    if state == 'p' then
      enqueue(id, backlog_of(route, losses, there[9]), at, tonumber(there[11]))
    else
      set[n + 1], set[n + 2] = 'z', tonumber(there[13]) + 1
      index_ended(id, state, order, there[9])
    end
    redis.call('HSET', task, unpack(set))
    if there[4] then redis.call('HDEL', task, 'k') end
    if outcome ~= 'b' and executed_by == '' then redis.call('HDEL', task, 'w') end
    remove(leases, id)
    record_transition(id, route, 'r', state, order)
    answers[#answers + 1] = { state, route, '' }
  end
end
write()
return { now, answers }
