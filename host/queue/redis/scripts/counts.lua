-- ARGV: queue. Returns how many tasks each type has in each state: type, letter of the state and number in
-- turn, without the zeros.
local counts, careful = {}, library()
local function count(task_type, letter, set)
  local number = call('ZCARD', set)
  if number == 0 then return end
  local of = counts[task_type] or {}
  counts[task_type] = of
  of[letter] = (of[letter] or 0) + number
end

for _, priority in ipairs({ '', '+', '~' }) do
  for _, backlog in ipairs(call('ZRANGE', TAG .. ':heads' .. priority, 0, -1)) do
    local task_type = string.match(backlog, '^[^@!+~/]+')
    if sub(backlog, -1) == '/' then
      for _, group in ipairs(call('ZRANGE', TAG .. ':ring:' .. sub(backlog, 1, -2), 0, -1)) do
        if group ~= '' then count(task_type, 'p', TAG .. ':ready:' .. backlog .. group) end
      end
    else
      count(task_type, 'p', TAG .. ':ready:' .. backlog)
    end
  end
end
for _, task_type in ipairs(call('SMEMBERS', TAG .. ':types')) do
  count(task_type, 'p', TAG .. ':late:' .. task_type)
  count(task_type, 'r', TAG .. ':leases:' .. task_type)
  for _, letter in ipairs({ 'c', 'f', 'x' }) do count(task_type, letter, TAG .. ':ended:' .. letter .. ':' .. task_type) end
end
local answer = {}
for task_type, of in pairs(counts) do
  for letter, number in pairs(of) do
    local n = #answer
    answer[n + 1], answer[n + 2], answer[n + 3] = task_type, letter, format('%d', number)
  end
end
return answer
