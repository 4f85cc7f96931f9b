-- ARGV: queue, how many groups of a backlog to return, for how long a group waits at its concurrency limit, then
-- task types.
-- Returns types and groups that have a due task, in turn: by their turns within each backlog, and those of
-- suspects. Groups that wait at their concurrency limit are among them, since the limit is that of all shards.
local careful, types, seen, answer = library(), {}, {}, {}
for i = 4, #ARGV do types[ARGV[i]] = true end
local function add(task_type, group)
  local scope = task_type .. '/' .. group
  if group == '' or group == '-' or seen[scope] then return end
  seen[scope] = true
  local n = #answer
  answer[n + 1], answer[n + 2] = task_type, group
end

for _, backlog in ipairs(call('SMEMBERS', TAG .. ':rings')) do
  local task_type = string.match(backlog, '^[^@!+~/]+')
  if types[task_type] then
    local last = careful.bound + tonumber(ARGV[3]) * STEP
    local groups = call('ZRANGE', TAG .. ':ring:' .. backlog, '-inf', last, 'BYSCORE', 'LIMIT', 0, ARGV[2], 'WITHSCORES')
    for g = 1, #groups, 2 do
      local first
      if groups[g] ~= '' and tonumber(groups[g + 1]) > careful.bound then
        first = call('ZRANGE', TAG .. ':ready:' .. backlog .. '/' .. groups[g], 0, 0, 'WITHSCORES')[2]
      end
      if not first or tonumber(first) <= LAST then add(task_type, groups[g]) end
    end
  end
end
for _, heads in ipairs({ '', '+', '~' }) do
  for _, backlog in ipairs(call('ZRANGE', TAG .. ':heads' .. heads, '-inf', LAST, 'BYSCORE')) do
    local task_type = string.match(backlog, '^([^@!+~/]+)[^!+~/]*!')
    if task_type and types[task_type] then
      for _, id in ipairs(call('ZRANGE', TAG .. ':ready:' .. backlog, '-inf', LAST, 'BYSCORE', 'LIMIT', 0, 32)) do
        local task = careful.read(id)
        add(task_type, task and task.options and task.options.group or '')
      end
    end
  end
end
return answer
