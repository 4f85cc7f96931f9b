-- ARGV: queue, for how long a reservation of a unique key allows to store its task, then for each task its id,
-- `TYPE KEY`, and 1 if, unless it is open, it may no longer be stored with a reservation of the past. Returns a
-- letter for each task: o open, e ended, u there is none with this key.
--
-- A submission that was delayed on its way must not store a second task with the key after it was given to
-- another: submit.lua refuses what was reserved before.
local allowed, answers, careful = tonumber(ARGV[2]), {}, library()
for i = 3, #ARGV, 3 do
  local id, name = ARGV[i], ARGV[i + 1]
  local letter = careful.state_of(id)
  local task = letter and careful.read(id)
  if not (task and task.options and task.type .. ' ' .. task.options.unique == name) then
    answers[#answers + 1] = 'u'
  else
    answers[#answers + 1] = (letter == 'p' or letter == 'r') and 'o' or 'e'
  end
  if answers[#answers] ~= 'o' and ARGV[i + 2] == '1' then
    call('SET', TAG .. ':void:' .. id, format('%d', NOW + allowed), 'PX', 60000)
  end
end
return table.concat(answers)
