-- ARGV: queue, d for the first task that fits or p for the first due task that does not fit, then a lease
-- request (`matcher` in common.lua). Returns 1 if the task types have to be registered first, the
-- milliseconds until that task is due (nothing if there is none), and its type. Types whose concurrency
-- limit is reached do not count: they wait for an end, and not for a time.
local requested_of, available = matcher(3)
if not requested_of then return { 1, '', '' } end
local PAGE = 64
local blocked, last = ARGV[2] == 'p', math.huge
if blocked then last = LAST end
local first, of

-- Looks for such a task among those of a priority.
local function look(heads)
  local seen = 0
  repeat
    local backlogs = redis.call('ZRANGE', heads, '-inf', last == math.huge and '+inf' or integer(last), 'BYSCORE',
      'LIMIT', seen, PAGE, 'WITHSCORES')
    for l = 1, #backlogs, 2 do
      local requested = requested_of(backlogs[l])
      if requested and requested.left > 0 and fits(requested, available) ~= blocked then
        first, of = tonumber(backlogs[l + 1]), backlogs[l]
        last = first
        return
      end
    end
    seen = seen + #backlogs / 2
  until #backlogs < 2 * PAGE
end

for _, priority in ipairs({ '', '+', '~' }) do look(TAG .. ':heads' .. priority) end
if not first then return { 0, '', '' } end
return { 0, integer(math.max(0, math.floor(first / STEP) - NOW)), string.match(of, '^[^@!+~/]+') }
