-- Returns the time in the id of an event, and the number of its first change, if it has one.
local function parse_event(event)
  local fields, time = event[2], tonumber(string.match(event[1], '^%d+'))
  for i = 3, #fields, 2 do
    if fields[i] == '#' then return time, tonumber(fields[i + 1]) end
  end
  return time, nil
end

-- Drops events of which so many later changes are kept, while somebody follows the changes. Their times are in
-- order, so a few steps find the first one to be kept.
local function trim_events(keep)
  local EVENTS = TAG .. ':events'
  local oldest = call('HGET', SHARD, 'changes') - keep
  local first = call('XRANGE', EVENTS, '-', '+', 'COUNT', 1)[1]
  local last = call('XREVRANGE', EVENTS, '+', '-', 'COUNT', 1)[1]
  if not first then return end
  local low, number = parse_event(first)
  local high = parse_event(last)
  if number and number >= oldest then return end
  while low < high do
    local middle = math.floor((low + high) / 2)
    local _, at = parse_event(call('XRANGE', EVENTS, format('%d', middle), '+', 'COUNT', 1)[1])
    if at and at >= oldest then high = middle else low = middle + 1 end
  end
  call('XTRIM', EVENTS, 'MINID', '~', format('%d', low))
end
