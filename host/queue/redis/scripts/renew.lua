-- ARGV: queue, ttl, then for each lease the id and fencing token.
-- Returns a letter for each lease: h held, k held and cancellation requested, l lost.
local ends = NOW + tonumber(ARGV[2])
local answers = {}
for i = 3, #ARGV, 2 do
  local id, task = ARGV[i], key(ARGV[i])
  local there = read(id, 's', 'f', 'k')
  if there[1] == 'r' and there[2] == ARGV[i + 1] then
    redis.call('HSET', task, 'u', integer(ends))
    add(TAG .. ':leases', ends, id)
    answers[#answers + 1] = there[3] and 'k' or 'h'
  else
    answers[#answers + 1] = 'l'
  end
end
write()
return table.concat(answers)
