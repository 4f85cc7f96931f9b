-- ARGV: from, what is asked (d when the first task is due that there is room for, p which is the first
-- due one that has not the room), then what is wanted (`wants` in common.lua). Answers 1 if what is wanted
-- has to be told first, how many milliseconds until that task is due (nothing where there is none), and
-- its type. A type of which as many run as may has to wait for an end, and not for a time.
local of, room = wants(3)
if not of then return { 1, '', '' } end
local LANES = 64
local passed, last, seen = ARGV[2] == 'p', '+inf', 0
if passed then last = whole(NOW * STEP + STEP - 1) end
repeat
  local lines = redis.call('ZRANGE', TAG .. ':heads', '-inf', last, 'BYSCORE', 'LIMIT', seen, LANES, 'WITHSCORES')
  for l = 1, #lines, 2 do
    local wanted = of(lines[l])
    if wanted and wanted.left > 0 and fits(wanted, room) ~= passed then
      local due = math.floor(tonumber(lines[l + 1]) / STEP)
      return { 0, whole(math.max(0, due - NOW)), type_of(lines[l]) }
    end
  end
  seen = seen + #lines / 2
until #lines < 2 * LANES
return { 0, '', '' }
