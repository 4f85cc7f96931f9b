-- ARGV: queue, how many to return, how many to read, the duration of a lease, and types to leave out.
-- Returns for each expired lease the id, fencing token, type, attempt, 1 if cancellation was requested, the
-- number of earlier losses that were not charged, and i or nothing.
local max, scan, ttl, others = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), {}
for i = 5, #ARGV do
  others[ARGV[i]] = true
end
-- Every node queries expired leases once a second. If none could, none could renew a lease either: live
-- nodes then get the time to do so before a lease counts as expired.
local trusted = tonumber(redis.call('HGET', N, 'trusted') or 0)
local HOUR, MINUTE = 3600000, 60000
if WALL + SKEW < LOOKED then
  -- The clock was set back. The time continues from where it was.
  SKEW = LOOKED - WALL
elseif SKEW > 0 and NOW - LOOKED > MINUTE then
  -- No node queried, or the clock was set forward again.
  SKEW = SKEW - math.min(SKEW, NOW - LOOKED)
  NOW = WALL + SKEW
end
if LOOKED > 0 and NOW - LOOKED > HOUR then IDLE = IDLE + NOW - LOOKED - HOUR end
if NOW - LOOKED > 1000 + ttl / 3 then trusted = NOW + math.floor(ttl / 2) end
redis.call('HSET', N, 'looked', integer(NOW), 'trusted', integer(trusted), 'skew', integer(SKEW), 'idle', integer(IDLE))
if NOW < trusted then return {} end
local answer, found, seen = {}, 0, 0
local page = integer(math.min(max, scan))
repeat
  local late = redis.call('ZRANGE', TAG .. ':leases', '-inf', '(' .. integer(NOW), 'BYSCORE', 'LIMIT', seen, page)
  seen = seen + #late
  for _, id in ipairs(late) do
    local there = read(id, 's', 'f', 'l', 'a', 'k', 'v', 'i')
    local of = there[1] == 'r' and valid_route(there[3]) and type_of(there[3])
    if there[1] == 'r' and not (of and number_of(there[2]) and number_of(there[4])) then
      fail_damaged(id, 'it lacks fields that a lost attempt needs')
    elseif not of then
      remove(TAG .. ':leases', id)
    elseif not others[of] and found < max then
      found = found + 1
      local n = #answer
      answer[n + 1], answer[n + 2], answer[n + 3] = id, there[2], of
      answer[n + 4], answer[n + 5], answer[n + 6] = there[4], there[5] and '1' or '0', integer(number_of(there[6]) or 0)
      answer[n + 7] = there[7] or ''
    end
  end
until #late < tonumber(page) or found == max or seen >= scan
write()
return answer
