-- ARGV: from, how many, how many to look at, how long a lease holds, and types to leave out. Answers for
-- each lease that has run out id, fence, type, attempt, 1 if its end was asked for, and how often it
-- was lost before without being charged.
local most, looks, ttl, others = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), {}
for i = 5, #ARGV do
  others[ARGV[i]] = true
end
-- Everybody looks once a second. When nobody has, nobody could renew a lease either: whoever lives gets
-- the time to do so before anybody is taken for lost.
local trusted = tonumber(redis.call('HGET', N, 'trusted') or 0)
local HOUR, MINUTE = 3600000, 60000
if WALL + SKEW < LOOKED then
  -- The clock was set back, and the time goes on from where it was.
  SKEW = LOOKED - WALL
elseif SKEW > 0 and NOW - LOOKED > MINUTE then
  -- Nobody looked, or the clock was put right again.
  SKEW = SKEW - math.min(SKEW, NOW - LOOKED)
  NOW = WALL + SKEW
end
if LOOKED > 0 and NOW - LOOKED > HOUR then IDLE = IDLE + NOW - LOOKED - HOUR end
if NOW - LOOKED > 1000 + ttl / 3 then trusted = NOW + math.floor(ttl / 2) end
redis.call('HSET', N, 'looked', whole(NOW), 'trusted', whole(trusted), 'skew', whole(SKEW), 'idle', whole(IDLE))
if NOW < trusted then return {} end
local answer, found, seen = {}, 0, 0
repeat
  local late = redis.call('ZRANGE', TAG .. ':leases', '-inf', '(' .. whole(NOW), 'BYSCORE', 'LIMIT', seen, ARGV[2])
  seen = seen + #late
  for _, id in ipairs(late) do
    local there = read(id, 's', 'f', 'l', 'a', 'k', 'v')
    local of = there[1] == 'r' and sound(there[3]) and type_of(there[3])
    if there[1] == 'r' and not (of and numbers(there[2], there[4])) then
      condemn(id, 'it lacks what a lost attempt needs')
    elseif not of then
      remove(TAG .. ':leases', id)
    elseif not others[of] and found < most then
      found = found + 1
      local n = #answer
      answer[n + 1], answer[n + 2], answer[n + 3] = id, there[2], of
      answer[n + 4], answer[n + 5], answer[n + 6] = there[4], there[5] or '0', there[6] or '0'
    end
  end
until #late < most or found == most or seen >= looks
write()
return answer
