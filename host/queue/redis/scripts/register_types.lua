-- ARGV: queue, a number for this registration, the number of targets, the targets as routes end with them,
-- then for each type its name and four numbers: the concurrency limits (of the node, and of all nodes in
-- this shard; -1: none), and the bytes and pool slots that a task takes.
-- Registers the task types of the queue's node, so that a lease need not send them. The registration
-- expires soon and is repeated. Each also restores backlogs of its types that TAG:heads has lost, or that an
-- older version has filled.
local TTL_MS = 10000
local registered, targets = TAG .. ':want:' .. FROM, {}
local i = 4 + tonumber(ARGV[3])
for t = 4, i - 1 do targets[#targets + 1] = ARGV[t] end
redis.call('DEL', registered)
redis.call('HSET', registered, '', ARGV[2])
local counts, has_pending = redis.call('HGETALL', N), {}
for c = 1, #counts, 2 do
  local task_type = string.match(counts[c], '^p (.+)$')
  if task_type and tonumber(counts[c + 1]) > 0 then has_pending[task_type] = true end
end
local set = {}
for t = i, #ARGV, 5 do
  local task_type = ARGV[t]
  set[#set + 1], set[#set + 2] = task_type, table.concat(ARGV, ' ', t + 1, t + 4)
  if #set >= 500 or t + 5 > #ARGV then
    redis.call('HSET', registered, unpack(set))
    set = {}
  end
  for _, target in ipairs(has_pending[task_type] and targets or {}) do
    dirty[task_type .. target], dirty[task_type .. target .. '!'] = true, true
  end
end
redis.call('PEXPIRE', registered, TTL_MS)
write()
