-- ARGV: queue, how many tasks may be open, the percentage of maxmemory that submissions leave free, 1 to
-- write in any case (so that replicas have something to confirm), 1 if the ids differ and no task has
-- options, the bytes that all records take, the node that waits for tasks (or nothing) and the duration of
-- its leases, then for each task the id, the route (nothing: that of the task before), what it asks for and
-- its content.
-- A task asks for nothing, or to be handed off (h), or for what its options say: how long after its
-- submission it is due, or when (0: neither), up to when its unique key is reserved (0: it needs none), the
-- time by which its first attempt has to begin (0: none), and, if its unique key is in this shard and not
-- reserved yet, how long it has the key at least.
-- Returns the time, the fencing token of what was handed off (0: nothing), a letter for each task: n new, r
-- new and handed off, e existing, c conflict, f full, m no memory left for it, v its unique key is not
-- reserved any more (key_holders.lua) or may belong to a task on its way, u another task has its key; and the
-- ids of those tasks.
--
-- Only this script is refused by Redis itself when its memory is full: all others make room or are needed
-- for that.
local FIRST = 9
local limit, open = tonumber(ARGV[2]), shard[8]
local count, created = (#ARGV - FIRST + 1) / 4, 0
-- The order follows the time, so that shards can be listed together, with steps within a millisecond. It
-- does not stay far ahead of a clock that was set back.
local order, before = ORDER, NOW * STEP
if order < before or order > before + 10 * STEP then order = before - 1 end

local TASK = TAG .. ':task:'
local orders, answers, holders = {}, {}, {}
-- Stores one task after the other.
local function store_singly(careful)
  -- Clients give times by the clock of Redis, and what is due goes by the queue's.
  local ahead = NOW - WALL
  -- No task is due later, so that its score is exact.
  local far = NOW + 2 ^ 41
  local route
  for k = 1, count do
    local i = FIRST + 4 * (k - 1)
    local id, asks, content = ARGV[i], ARGV[i + 2], ARGV[i + 3]
    if ARGV[i + 1] ~= '' then route = ARGV[i + 1] end
    local after, at, till, by, time = string.match(asks, '^(%d+) (%d+) (%d+) (%d+) ?(%d*)$')
    after, at, till, by, time = tonumber(after), tonumber(at), tonumber(till), tonumber(by), tonumber(time)
    local existing = careful.compare(id, content)
    local key = time and not existing and careful.unique_key(route, content)
    local holder = key and careful.holder_of(key, id)
    if existing then
      answers[k] = existing
    elseif holder then
      answers[k] = holder == '' and 'v' or 'u'
      if holder ~= '' then holders[#holders + 1] = holder end
    elseif till and till > 0 and (NOW > till or till <= tonumber(call('GET', TAG .. ':void:' .. id) or 0)) then
      answers[k] = 'v'
    elseif open + created >= limit then
      answers[k] = 'f'
    elseif not take_room(512 + #id + 2 * #content) then
      answers[k] = 'm'
    else
      created, order = created + 1, order + 1
      local text = format('%d', order)
      if after then
        local due = math.min(far, at > 0 and math.max(NOW, at + ahead) or NOW + after)
        careful.create(id, text, route, content, due, by > 0 and math.max(1, math.min(far, by + ahead)))
        if key then careful.take_key(key, id, text, time) end
        answers[k] = 'o'
      else
        call('SET', TASK .. id, text .. FRESH .. content)
        orders[k] = text
      end
    end
  end
end

local records, n, last, careful = {}, 0, order, nil
if ARGV[5] == '1' and open + count <= limit and take_room(tonumber(ARGV[6])) then
  for i = FIRST, #ARGV, 4 do
    last = last + 1
    local text = format('%d', last)
    orders[#orders + 1] = text
    records[n + 1], records[n + 2] = TASK .. ARGV[i], text .. FRESH .. ARGV[i + 3]
    n = n + 2
  end
end
if n > 0 and call('MSETNX', unpack(records)) == 1 then
  order, created = last, count
else
  careful = library()
  store_singly(careful)
end

-- Priorities and groups have shares in the leases.
local has_shares = call('EXISTS', TAG .. ':heads+', TAG .. ':heads~', TAG .. ':rings') > 0

-- Returns what becomes of the tasks of a route that have no options. They are handed off only if no task waits
-- that a lease would take before them.
local function of_route(route)
  local is_free = ARGV[7] ~= '' and not has_shares
  if is_free then is_free = (tonumber(call('ZSCORE', TAG .. ':heads', route) or nil) or math.huge) > LAST end
  return { places = {}, ids = {}, leased = {}, handed = {}, is_free = is_free }
end

local routes, its, route = {}, nil, nil
local runs, ends, fence, suffix = {}, nil, nil, nil
for k = 1, count do
  local i = FIRST + 4 * (k - 1)
  if ARGV[i + 1] ~= '' and ARGV[i + 1] ~= route then
    route = ARGV[i + 1]
    its = routes[route] or of_route(route)
    routes[route] = its
    if its.is_free then
      if not fence then
        fence = format('%d', math.max(NOW * STEP, shard[5] + 1))
        ends = format('%d', NOW + tonumber(ARGV[8]))
      end
      suffix = ' ' .. fence .. ' ' .. ARGV[7] .. ' ' .. route .. ' -'
    end
  end
  if answers[k] then
    -- It has options, or is not new.
  elseif its.is_free and ARGV[i + 2] == 'h' then
    local id, m = ARGV[i], #runs
    runs[m + 1], runs[m + 2] = id, orders[k] .. suffix
    m = #its.leased
    its.leased[m + 1], its.leased[m + 2] = ends, id
    its.handed[#its.handed + 1] = id
    answers[k] = 'r'
  else
    local m = #its.places
    its.places[m + 1], its.places[m + 2] = orders[k], ARGV[i]
    its.ids[#its.ids + 1] = ARGV[i]
    answers[k] = 'n'
  end
end

local events, e = { TAG .. ':events', 'MAXLEN', '~', 1024, '*', 'from', FROM }, 7
for route, its in pairs(routes) do
  local task_type = string.match(route, '^[^@]+')
  if #its.ids > 0 then
    call('ZADD', TAG .. ':ready:' .. route, unpack(its.places))
    if has_shares then
      careful = careful or library()
      careful.touch(route)
    else
      call('ZADD', TAG .. ':heads', 'LT', its.places[1], route)
    end
    events[e + 1], events[e + 2] = 'p', task_type .. ' ' .. table.concat(its.ids, ' ')
    e = e + 2
  end
  if #its.handed > 0 then
    -- No lease may have registered the type yet.
    call('SADD', TAG .. ':types', task_type)
    call('ZADD', TAG .. ':leases:' .. task_type, unpack(its.leased))
    events[e + 1], events[e + 2] = 'r ' .. ARGV[7], task_type .. ' ' .. table.concat(its.handed, ' ')
    e = e + 2
  end
end
local leased = #runs / 2
if leased > 0 then
  call('HSET', TAG .. ':run', unpack(runs))
  call('HSET', SHARD, 'fence', fence, 'leased', shard[6] + leased)
end
if careful then careful.write() end
if created > 0 or ARGV[4] == '1' then
  call('HSET', SHARD, 'order', format('%d', order), 'open', open + created, 'checked', checked, 'room', left)
end
if e > 7 then
  if number_event then number_event(events) end
  call('XADD', unpack(events))
end
for k = 1, count do
  if answers[k] == 'o' then answers[k] = 'n' end
end
return { NOW, leased > 0 and fence or '0', table.concat(answers), holders }
