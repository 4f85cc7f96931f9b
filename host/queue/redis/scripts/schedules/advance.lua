-- ARGV: queue, then for each schedule its name, the expected version, its record, and when it is due (or
-- nothing). Returns 1 for each whose record was stored.
local answer = {}
for i = 2, #ARGV, 4 do
  local name = ARGV[i]
  local is_expected = redis.call('HGET', key(name), 'v') == ARGV[i + 1]
  if is_expected then
    redis.call('HSET', key(name), 'v', new_version(), 'r', ARGV[i + 2])
    set_due(name, ARGV[i + 3])
  end
  answer[#answer + 1] = is_expected and 1 or 0
end
return answer
