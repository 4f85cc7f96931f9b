-- ARGV: queue, a task type, how long to hold the right to lease tasks of the type in milliseconds (0: do not
-- take it), the rate of the type in units a millisecond and the size of its bucket (0: it has none), how many
-- permits to take, then for each group: its name, its rate in the same way, and how many permits to take.
-- Returns 1 if another queue has the right, and then nothing is taken; how many permits were taken of the type,
-- and how long until the next one; and the same for each group.
local task_type, hold = ARGV[2], tonumber(ARGV[3])
local LOCK = TAG .. ':limit:' .. task_type
if hold > 0 then
  local holder = call('GET', LOCK)
  if holder and holder ~= FROM then return { 1, 0, 0 } end
  call('SET', LOCK, FROM, 'PX', hold)
end
local answer = { 0 }
local function take(scope, per_ms, capacity, want)
  per_ms, want = tonumber(per_ms), tonumber(want)
  local n = #answer
  if per_ms == 0 then
    answer[n + 1], answer[n + 2] = want, 0
  else
    answer[n + 1], answer[n + 2] = take_permits(scope, per_ms, tonumber(capacity), want)
  end
end
take(task_type, ARGV[4], ARGV[5], ARGV[6])
for i = 7, #ARGV, 4 do take(task_type .. '/' .. ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]) end
return answer
