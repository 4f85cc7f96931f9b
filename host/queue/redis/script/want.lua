-- ARGV: from, a number for what follows, how many targets, these as they end the names of lanes, then for
-- each type its name and four numbers: how many at once (in all, and in this shard on all nodes together;
-- -1: any number), and the bytes and pool slots that one takes.
-- Tells this shard what the node of the asking queue runs, so that no lease has to: it looks at what
-- waits, and asks here whether the node runs it. It is forgotten soon, and told again; lanes of its types
-- that TAG:heads has lost, or that an older version filled, are put in then.
local LIVES_MS = 10000
local told, targets = TAG .. ':want:' .. FROM, {}
local i = 4 + tonumber(ARGV[3])
for t = 4, i - 1 do targets[#targets + 1] = ARGV[t] end
redis.call('DEL', told)
redis.call('HSET', told, '', ARGV[2])
local counts, waits = redis.call('HGETALL', N), {}
for c = 1, #counts, 2 do
  local task_type = string.match(counts[c], '^p (.+)$')
  if task_type and tonumber(counts[c + 1]) > 0 then waits[task_type] = true end
end
local set = {}
for t = i, #ARGV, 5 do
  local task_type = ARGV[t]
  set[#set + 1], set[#set + 2] = task_type, table.concat(ARGV, ' ', t + 1, t + 4)
  if #set >= 500 or t + 5 > #ARGV then
    redis.call('HSET', told, unpack(set))
    set = {}
  end
  for _, target in ipairs(waits[task_type] and targets or {}) do
    touched[task_type .. target], touched[task_type .. target .. '!'] = true, true
  end
end
redis.call('PEXPIRE', told, LIVES_MS)
write()
