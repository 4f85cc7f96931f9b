-- ARGV: queue, what to do (k cancel, q requeue, g purge, y set the priority, n run now), the reason of a
-- cancellation as JSON or the mark of a priority (or nothing), and the ids of tasks.
-- Returns for each id a letter and the type of the task: the state in which the task was; k if its
-- cancellation had been requested before, n if it waited for its time, d if its record is damaged. Both are
-- empty if there is no such task.
local what, value, RUN = ARGV[2], ARGV[3], TAG .. ':run'
local careful = library()

-- A task whose record is damaged fails.
local function damaged(id) return 'd', careful.fail_damaged(id, 'it lacks what an operator asked for') end

-- Moves a pending task. What its first attempt has to begin by stays.
local function move(id, task)
  local by = tonumber(call('ZSCORE', TAG .. ':start', id) or call('ZSCORE', TAG .. ':late:' .. task.type, id) or '')
  careful.unplace(id, task)
  return function()
    careful.store(id, task)
    careful.place(id, task, by)
  end
end

local function cancel(id)
  local task = careful.read(id)
  if not task then return damaged(id) end
  careful.unplace(id, task)
  local left = value == '' and '{}\n' or '{"why":' .. value .. '}\n'
  careful.finish(id, task.order, task.type, 'x', careful.ttl_of(task), left)
  careful.closed()
  careful.emit(id .. careful.tag_of(0, task.options), task.type, 'x')
end

local function interrupt(id)
  local stored = call('HGET', RUN, id)
  local run = careful.parse_run(stored)
  if not run then return damaged(id) end
  if run.cancel then return 'k', run.type end
  call('HSET', RUN, id, stored .. ' k' .. (value == '' and '' or ' ' .. value))
  careful.emit(id .. run.tag, run.type, 'k', run.node)
end

-- Returns what a task says of its earlier attempts, with the reason of a cancellation since then.
local function with_reason(id, left)
  local past = call('GET', TAG .. ':past:' .. id) or ''
  local said = string.match(past, '^[^\n]*\n\n%S+ %S+ %S+ ([^\n]*)') or string.match(past, '^[^\n]*\n([^\n]*)') or ''
  local is_json, attempt = pcall(cjson.decode, said)
  if not is_json or type(attempt) ~= 'table' then return left end
  attempt.why = cjson.decode(left).why
  return cjson.encode(attempt)
end

local function requeue(id, task_type)
  local task, ended = careful.read(id), careful.read_end(id)
  if not task then return 'd', task_type end
  -- What the last attempt left is kept.
  local at, left = string.match(call('GET', TAG .. ':end:' .. id), '^%a (%d+)[^\n]*\n([^\n]*)')
  left = left or ''
  local attempt = careful.is_attempt(left) and format('%d', task.attempts + 1) .. ' - ' .. left
  local has_why, status = find(left, '^{"why":'), nil
  if has_why or find(left, '"error":', 1, true) then
    status = attempt and '' or has_why and with_reason(id, left) or left
  end
  careful.remember(id, '', tonumber(at or NOW), attempt, status)
  careful.unend(id, ended)
  task.due, task.attempts, task.losses = NOW, 0, 0
  careful.again(id, task)
  careful.opened()
  careful.emit(id .. careful.tag_of(1, task.options), task.type, 'p')
end

local function purge(id) careful.purge(id, careful.read_end(id)) end

local function set_priority(id)
  local task = careful.read(id)
  if not task then return damaged(id) end
  local place = move(id, task)
  task.priority = value
  place()
end

local function run_now(id)
  local task = careful.read(id)
  if not task then return damaged(id) end
  if careful.due_of(task) <= NOW then return nil end
  local place = move(id, task)
  task.due = NOW
  place()
  careful.emit(id .. careful.tag_of(1, task.options), task.type, 'p')
  return 'n', task.type
end

-- By what is to be done and the state of the task.
local actions = {
  k = { p = cancel, r = interrupt },
  q = { f = requeue, x = requeue },
  g = { c = purge, f = purge, x = purge },
  y = { p = set_priority },
  n = { p = run_now },
}
local answers = {}
for i = 4, #ARGV do
  local id = ARGV[i]
  local letter, task_type = careful.state_of(id)
  local act = letter and actions[what][letter]
  if act then
    local other, its = act(id, task_type)
    letter, task_type = other or letter, its or task_type
  end
  answers[#answers + 1] = letter or ''
  answers[#answers + 1] = task_type or ''
end
careful.write()
return answers
