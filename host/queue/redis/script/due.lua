-- ARGV: from, then for each type its name, how many of it may run in this shard (-1: any number), how
-- many lanes follow, and these. Answers how many milliseconds until the first task in them is due, or
-- nothing. A type of which as many run as may has to wait for an end, and not for a time.
local first
local i = 2
while i <= #ARGV do
  local task_type, cluster, lanes = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local full = cluster >= 0 and tonumber(redis.call('HGET', N, 'r ' .. task_type) or 0) >= cluster
  for l = i + 3, i + 2 + lanes do
    local head = full and {} or redis.call('ZRANGE', lane_key(ARGV[l]), 0, 0, 'WITHSCORES')
    if head[2] then
      local score = tonumber(head[2])
      if not first or score < first then first = score end
    end
  end
  i = i + 3 + lanes
end
if not first then return false end
return math.max(0, math.floor(first / STEP) - NOW)
