-- ARGV: queue, d for the first task that fits or p for the first due task that does not fit, then a lease
-- request (shared/request.lua). Returns 1 if the task types have to be registered first, the milliseconds
-- until that task is due (nothing if there is none), and its type. Types whose concurrency limit is reached
-- do not count: they wait for an end, and not for a time.
local PAGE = 64
local is_blocked, last = ARGV[2] == 'p', nil
if is_blocked then last = LAST end
local first, of

-- Looks for such a task among those of a priority. Returns false if the task types are not registered.
local function look(heads)
  local seen = 0
  repeat
    local backlogs = call('ZRANGE', heads, '-inf', last or '+inf', 'BYSCORE', 'LIMIT', seen, PAGE, 'WITHSCORES')
    if not read_limits(unread_types(backlogs, 2)) then return false end
    for l = 1, #backlogs, 2 do
      local requested = requested_of(backlogs[l])
      if requested and requested.left > 0 then
        local has_room = requested.bytes <= available.bytes and requested.slots <= available.slots
        if has_room ~= is_blocked then
          first, of = tonumber(backlogs[l + 1]), requested.type
          last = first
          return true
        end
      end
    end
    seen = seen + #backlogs / 2
  until #backlogs < 2 * PAGE
  return true
end

for _, priority in ipairs({ '', '+', '~' }) do
  if not look(TAG .. ':heads' .. priority) then return { 1, '', '' } end
end
if not first then return { 0, '', '' } end
local wait = first <= LAST and 0 or math.max(0, math.floor(first / STEP) - NOW)
return { 0, format('%d', wait), of }
