-- ARGV: queue, id. Returns the state in which the task was (k if its cancellation had been requested
-- before), and its type; nothing if there is no such task.
local id, RUN = ARGV[2], TAG .. ':run'
local careful = library()
local letter, task_type = careful.state_of(id)
if not letter then return {} end
if letter == 'r' then
  local value = call('HGET', RUN, id)
  local run = careful.parse_run(value)
  if not run then
    letter, task_type = 'f', careful.fail_damaged(id, 'it lacks what cancelling needs')
  elseif run.cancel then
    return { 'k', run.type }
  else
    call('HSET', RUN, id, value .. ' k')
    careful.emit(id, run.type, 'k')
  end
elseif letter == 'p' then
  local task = careful.read(id)
  if task then
    careful.unplace(id, task)
    careful.finish(id, task.order, task.type, 'x', careful.ttl_of(task), '{}\n')
    careful.closed()
    careful.emit(id, task.type, 'x')
  else
    letter, task_type = 'f', careful.fail_damaged(id, 'it lacks what cancelling needs')
  end
end
careful.write()
return { letter, task_type }
