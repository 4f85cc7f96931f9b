-- ARGV: queue, d for the first task that fits or p for the first due task that does not fit, then a lease
-- request (`matcher` in common.lua). Returns 1 if the task types have to be registered first, the
-- milliseconds until that task is due (nothing if there is none), and its type. Types whose concurrency
-- limit is reached do not count: they wait for an end, and not for a time.
local requested_of, available = matcher(3)
if not requested_of then return { 1, '', '' } end
local PAGE = 64
local blocked, last, seen = ARGV[2] == 'p', '+inf', 0
if blocked then last = integer(NOW * STEP + STEP - 1) end
repeat
  local backlogs = redis.call('ZRANGE', TAG .. ':heads', '-inf', last, 'BYSCORE', 'LIMIT', seen, PAGE, 'WITHSCORES')
  for l = 1, #backlogs, 2 do
    local requested = requested_of(backlogs[l])
    if requested and requested.left > 0 and fits(requested, available) ~= blocked then
      local due = math.floor(tonumber(backlogs[l + 1]) / STEP)
      return { 0, integer(math.max(0, due - NOW)), type_of(backlogs[l]) }
    end
  end
  seen = seen + #backlogs / 2
until #backlogs < 2 * PAGE
return { 0, '', '' }
