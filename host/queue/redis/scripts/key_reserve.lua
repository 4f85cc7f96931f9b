-- ARGV: queue, then for each unique key `TYPE KEY`, the id of the task that is to have it, a token for this
-- reservation, how long the task has the key at least, and the token of the reservation that may be replaced
-- (or nothing). Returns for each either nothing, if the key is reserved, or the id of the task that has it,
-- the token of its reservation, 1 if that task is known to be stored, 1 if its time is not over, and how long
-- ago it was reserved.
--
-- A key and its task may be in different shards. So a key is reserved first, then the task is stored, and
-- then the reservation is confirmed (key_settle.lua). A key is not given back: one that is asked for when
-- its time is over goes to the next task if its own has ended or does not exist (key_holders.lua).
local UNIQUE, HELD = TAG .. ':unique', TAG .. ':held'
-- After how long a key is looked at for the first time (key_due.lua).
local LOOK = 10000
local answers, set, due = {}, {}, {}
for i = 2, #ARGV, 5 do
  local name, id, token, time, replaced = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), ARGV[i + 4]
  local held = set[name] or call('HGET', UNIQUE, name) or ''
  local holder, its_token, since, till, stored = string.match(held, '^(%S+) (%S+) (%d+) (%d+) (%d)$')
  since, till = tonumber(since), tonumber(till)
  if holder and holder ~= id and its_token ~= replaced then
    answers[#answers + 1] = { holder, its_token, stored, NOW < till and '1' or '0', format('%d', math.max(0, NOW - since)) }
  else
    local ends = NOW + time
    if holder == id then ends = math.max(ends, till) end
    set[name] = table.concat({ id, token, format('%d', NOW), format('%d', ends), '0' }, ' ')
    due[name] = math.max(ends, NOW + LOOK)
    answers[#answers + 1] = {}
  end
end
for name, held in pairs(set) do
  call('HSET', UNIQUE, name, held)
  call('ZADD', HELD, format('%d', due[name]), name)
end
return answers
