-- ARGV: queue, then scopes: TYPE or TYPE/GROUP.
-- Returns for each how many tasks are pending; suspects count for their type only.
local answer, counts = {}, {}
local function add(scope, set) if counts[scope] then counts[scope] = counts[scope] + call('ZCARD', set) end end
for i = 2, #ARGV do counts[ARGV[i]] = 0 end

-- The groups that are asked for alone.
local groups, has_types = {}, false
for scope in pairs(counts) do
  local task_type, group = string.match(scope, '^([^/]+)/(.*)$')
  if group then
    groups[task_type] = groups[task_type] or {}
    groups[task_type][group] = true
  else
    has_types = true
    add(scope, TAG .. ':late:' .. scope)
  end
end
for _, backlog in ipairs(call('SMEMBERS', TAG .. ':rings')) do
  local task_type = string.match(backlog, '^[^@!+~/]+')
  for group in pairs(groups[task_type] or {}) do add(task_type .. '/' .. group, TAG .. ':ready:' .. backlog .. '/' .. group) end
  if counts[task_type] then
    for _, group in ipairs(call('ZRANGE', TAG .. ':ring:' .. backlog, 0, -1)) do
      if group ~= '' then add(task_type, TAG .. ':ready:' .. backlog .. '/' .. group) end
    end
  end
end
for _, priority in ipairs(has_types and { '', '+', '~' } or {}) do
  for _, backlog in ipairs(call('ZRANGE', TAG .. ':heads' .. priority, 0, -1)) do
    if sub(backlog, -1) ~= '/' then add(string.match(backlog, '^[^@!+~/]+'), TAG .. ':ready:' .. backlog) end
  end
end
for i = 2, #ARGV do answer[i - 1] = counts[ARGV[i]] end
return answer
