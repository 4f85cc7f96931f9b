-- ARGV: from, then lanes. Answers how many milliseconds until the first task in them is due, or
-- nothing.
local first
for i = 2, #ARGV do
  local head = redis.call('ZRANGE', lane_key(ARGV[i]), 0, 0, 'WITHSCORES')
  if head[2] then
    local score = tonumber(head[2])
    if not first or score < first then first = score end
  end
end
if not first then return false end
return math.max(0, math.floor(first / STEP) - NOW)
