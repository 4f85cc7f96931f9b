-- ARGV: queue, id. Returns how many tasks come before a pending one in its backlog, and 1 if its first attempt had
-- to begin before now; nothing unless it is pending.
local id = ARGV[2]
local careful = library()
local task = careful.state_of(id) == 'p' and careful.read(id)
if not task then return {} end
local backlog = TAG .. ':ready:' .. careful.backlog_of(task)
local ahead = call('ZCOUNT', backlog, '-inf', '(' .. format('%d', careful.score_of(task)))
-- A task that was requeued may begin at any time.
local is_late = not task.again and task.options and task.options.by > 0 and task.options.by < NOW
return { ahead, is_late and 1 or 0 }
