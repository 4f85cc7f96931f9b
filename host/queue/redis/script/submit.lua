-- ARGV: from, how many tasks may be open, 1 to write whatever happens (so that replicas can be waited
-- for), then for each task id, lane, m, p.
-- Answers a letter a task: n new, e existing, c conflict, f full.
local known = redis.call('HMGET', N, 'open', 'number', 'order')
local having, number, order = tonumber(known[1] or 0), tonumber(known[2] or 0), tonumber(known[3] or 0)
local limit = tonumber(ARGV[2])
local answers, fresh = {}, 0
-- By time, so that shards can be listed as one; by steps within a millisecond; and not far ahead of
-- a clock that was set back.
local base = NOW * STEP
if order < base or order > base + 10 * STEP then order = base - 1 end
for i = 4, #ARGV, 4 do
  local id, lane, m, p = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local task = key(id)
  local there = redis.call('HMGET', task, 'm', 'p')
  if there[1] then
    answers[#answers + 1] = (there[1] == m and there[2] == p) and 'e' or 'c'
  elseif having + fresh >= limit then
    answers[#answers + 1] = 'f'
  else
    fresh, number, order = fresh + 1, number + 1, order + 1
    redis.call('HSET', task, 'm', m, 'p', p, 'l', lane, 'o', whole(order), 'q', whole(number),
      't', whole(NOW), 's', 'p', 'u', whole(NOW), 'a', 0, 'z', 0)
    wait(id, lane, NOW, number)
    add(TAG .. ':all', order, id)
    move(id, lane, nil, 'p', order)
    answers[#answers + 1] = 'n'
  end
end
if fresh > 0 or ARGV[3] == '1' then
  redis.call('HSET', N, 'number', whole(number), 'order', whole(order))
  write()
end
return table.concat(answers)
