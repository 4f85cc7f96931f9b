-- ARGV: queue, a number for this registration, the number of targets, the targets as routes end with them,
-- then for each type its name and three numbers: the concurrency limit of the node, and the bytes and pool
-- slots that a task takes.
-- Registers the task types of the queue's node, so that a lease need not send them. The registration
-- expires soon and is repeated. Each also restores backlogs of its types that TAG:heads has lost.
local TTL_MS = 10000
local registered, careful = TAG .. ':want:' .. FROM, library()
local first = 4 + tonumber(ARGV[3])
call('DEL', registered)
call('HSET', registered, '', ARGV[2])
local set, types = {}, {}
for t = first, #ARGV, 4 do
  types[#types + 1] = ARGV[t]
  set[#set + 1], set[#set + 2] = ARGV[t], table.concat(ARGV, ' ', t + 1, t + 3)
  if #set >= 500 or t + 4 > #ARGV then
    call('HSET', registered, unpack(set))
    call('SADD', TAG .. ':types', unpack(types))
    set, types = {}, {}
  end
  for target = 4, first - 1 do
    for _, mark in ipairs({ '', '!' }) do
      local backlog = ARGV[t] .. ARGV[target] .. mark
      if call('EXISTS', TAG .. ':ready:' .. backlog) == 1 then careful.touch(backlog) end
    end
  end
end
call('PEXPIRE', registered, TTL_MS)
careful.write()
