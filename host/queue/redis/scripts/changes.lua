-- ARGV: queue, the id of the last event that was read, at least in part (nothing: none), the number of the next
-- change, how many to return.
-- Returns 1 if changes were missed, the number of the next change after all of them, the id of the latest event,
-- and the events from the given one on that have unread changes (their number is in each event), the last one
-- perhaps more of them than were requested.
--
-- Events have numbers, and are kept longer, from the first call on until some time after the last.
local FOLLOW = 600000
local EVENTS = TAG .. ':events'
if shard[9] < NOW + FOLLOW / 2 then call('HSET', SHARD, 'follow', format('%d', NOW + FOLLOW)) end
-- What was not numbered in between is a gap.
if not number_event then call('HINCRBY', SHARD, 'changes', 1048576) end
local total = tonumber(call('HGET', SHARD, 'changes') or 0)
local latest = call('XREVRANGE', EVENTS, '+', '-', 'COUNT', 1)[1]
latest = latest and latest[1] or '0-0'
local from, number = ARGV[2], tonumber(ARGV[3])
if from == '' or not number_event or number > total then return { from == '' and 0 or 1, total, latest, {} } end
local events, left = {}, tonumber(ARGV[4])
while number < total and left > 0 do
  local page = call('XRANGE', EVENTS, from, '+', 'COUNT', 8)
  for _, event in ipairs(page) do
    local fields, first, count = event[2], nil, 0
    for i = 3, #fields, 2 do
      if fields[i] == '#' then
        first = tonumber(fields[i + 1])
      else
        local _, ids = string.gsub(fields[i + 1], ' ', '')
        count = count + ids
      end
    end
    if left > 0 and first and first + count > number then
      if first > number then
        -- What is between was dropped.
        if #events == 0 then return { 1, total, latest, {} } end
        left = 0
      else
        events[#events + 1] = event
        left, number = left - (first + count - number), first + count
      end
    end
  end
  if #page < 8 then break end
  from = '(' .. page[#page][1]
end
if #events == 0 and number < total then return { 1, total, latest, {} } end
return { 0, total, latest, events }
