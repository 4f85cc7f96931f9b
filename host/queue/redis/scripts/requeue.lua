-- ARGV: queue, id. Returns the state in which the task was (d if its record is damaged, so that it is not
-- requeued) and its type; nothing if there is no such task.
local id = ARGV[2]
local careful = library()
local letter, task_type = careful.state_of(id)
if not letter then return {} end
if letter == 'f' or letter == 'x' then
  local task, ended = careful.read(id), careful.read_end(id)
  if not task then return { 'd', task_type } end
  -- What the last attempt left is kept.
  local left = string.match(call('GET', TAG .. ':end:' .. id), '\n([^\n]*)') or ''
  local past = string.match(call('GET', TAG .. ':past:' .. id) or '', '\n(.*)$') or ''
  call('SET', TAG .. ':past:' .. id, '\n' .. (find(left, '"error":', 1, true) and left or past))
  careful.unend(id, ended)
  task.due, task.attempts, task.losses = NOW, 0, 0
  careful.again(id, task)
  careful.opened()
  careful.emit(id, task.type, 'p')
end
careful.write()
return { letter, task_type }
