-- ARGV: queue, node, then scopes: TYPE or TYPE/GROUP.
-- Returns for each how many tasks run, and how many of a group run on the node.
local answer = {}
for i = 3, #ARGV do
  local task_type, group = string.match(ARGV[i], '^([^/]+)/?(.*)$')
  local set, n = TAG .. ':grouped:' .. task_type, #answer
  if group == '' then
    answer[n + 1], answer[n + 2] = call('ZCARD', TAG .. ':leases:' .. task_type), 0
  else
    local on_node = group .. ' ' .. ARGV[2]
    answer[n + 1] = call('ZLEXCOUNT', set, '[' .. group .. ' ', '(' .. group .. '!')
    answer[n + 2] = call('ZLEXCOUNT', set, '[' .. on_node .. ' ', '(' .. on_node .. '!')
  end
end
return answer
