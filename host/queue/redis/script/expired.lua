-- ARGV: from, how many. Answers for each lease that has run out id, fence, type, attempt, and 1 if its
-- end was asked for.
local late = redis.call('ZRANGE', TAG .. ':leases', '-inf', '(' .. whole(NOW), 'BYSCORE', 'LIMIT', 0, ARGV[2])
local answer = {}
for _, id in ipairs(late) do
  local there = redis.call('HMGET', key(id), 's', 'f', 'l', 'a', 'k')
  if there[1] == 'r' then
    local n = #answer
    answer[n + 1], answer[n + 2], answer[n + 3] = id, there[2], type_of(there[3])
    answer[n + 4], answer[n + 5] = there[4], there[5] or '0'
  else
    remove(TAG .. ':leases', id)
  end
end
write()
return answer
