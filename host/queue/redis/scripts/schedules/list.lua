-- ARGV: queue, the name before the first (or nothing), how many to return, how many bytes to return.
-- Returns the name that the next page follows (nothing if there is none), and name, version, what it is and
-- its record of each.
local from, max = ARGV[2] == '' and '-' or '(' .. ARGV[2], tonumber(ARGV[3])
local names = redis.call('ZRANGE', NAMES, from, '+', 'BYLEX', 'LIMIT', 0, max)
local answer, bytes = { #names == max and names[max] or '' }, 0
for i, name in ipairs(names) do
  local there = redis.call('HMGET', key(name), 'v', 's', 'r')
  if there[1] then
    for _, value in ipairs({ name, there[1], there[2] or '', there[3] or '' }) do
      answer[#answer + 1] = value
      bytes = bytes + #value
    end
  end
  if bytes >= tonumber(ARGV[4]) and i < #names then
    answer[1] = name
    break
  end
end
return answer
