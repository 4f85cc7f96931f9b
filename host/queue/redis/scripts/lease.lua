-- ARGV: queue, the number of this call, 1 if it repeats a call without an answer, node, ttl, how many tasks
-- and how many bytes in all, how many bytes a slow connection carries in a millisecond, how many records to
-- read at once, then a lease request (shared/request.lua).
-- Returns the time, the fencing token of all tasks, 1 if the task types have to be registered first, 1 if
-- due tasks were left because of their bytes, and for each task the id, the record, and 1 if it was tried
-- before. A first task is returned whatever its size.
local number, repeats = tonumber(ARGV[2]), ARGV[3] == '1'
local node, ttl, max = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local max_bytes, rate = tonumber(ARGV[7]), tonumber(ARGV[8])
local leased = {}

-- Returns the end of leases whose answer has so many bytes. What exceeds the limit gets the time that it
-- takes on its way.
local function lease_end(bytes) return format('%d', NOW + ttl + math.floor(math.max(0, bytes - max_bytes) / rate)) end

-- A repeated call whose first one was executed gets the same answer; the client of a cluster repeats calls
-- by itself. A call that arrives after a later one leases nothing.
local CALL = TAG .. ':call:' .. FROM
local known = call('GET', CALL)
if known then
  local last, fence, ids = string.match(known, '^(%d+) (%d+)(.*)$')
  last = tonumber(last)
  if last and last > number then return { NOW, '0', 0, 0, {} } end
  if last == number then
    local careful, types, bytes = library(), {}, 0
    for id in string.gmatch(ids, '%S+') do
      local run = careful.parse_run(call('HGET', TAG .. ':run', id))
      local record = run and run.fence == fence and redis.pcall('GET', TAG .. ':task:' .. id)
      if type(record) == 'string' then
        local n = #leased
        leased[n + 1], leased[n + 2], leased[n + 3] = id, record, call('EXISTS', TAG .. ':past:' .. id)
        types[id], bytes = run.type, bytes + #record
      end
    end
    local ends = lease_end(bytes)
    for id, task_type in pairs(types) do call('ZADD', TAG .. ':leases:' .. task_type, ends, id) end
    return { NOW, fence, 0, 0, leased }
  end
end

-- What the limits of groups leave of the request, by TYPE/GROUP: how many tasks may be leased, and for how long
-- the group waits after that (0: it does not). TYPE/ is there if the groups of a type have limits; a group of
-- such a type that is not there waits for the next request (permits.rs). TYPE/ has a number for these limits.
local rooms
for i = REQUEST + 6 + tonumber(ARGV[REQUEST + 5]), #ARGV, 2 do
  if find(ARGV[i], '/', 1, true) then
    local left, wait = string.match(ARGV[i + 1], '^(%d+) (%d+)$')
    rooms = rooms or {}
    rooms[ARGV[i]] = { left = tonumber(left), wait = tonumber(wait) }
  end
end
local NO_ROOM = { left = 0, wait = 0 }
-- The backlogs of groups that wait for their limits, with how long.
local parked = {}

-- Returns the room of a group; false if it has no limits.
local function room_of(task_type, group)
  if not rooms or group == '' or group == '-' or not rooms[task_type .. '/'] then return false end
  return rooms[task_type .. '/' .. group] or NO_ROOM
end

-- Moves on to the next task of a stream whose group has room.
local function pass_over(stream)
  while stream.rooms and stream.at <= #stream.due do
    local room = stream.rooms[stream.at]
    if not room or room.left > 0 then return end
    stream.at = stream.at + 2
  end
end

-- The priorities, the highest first, and whose turn it is in 21 leases in a row (Priority::of_turn): high,
-- normal or low.
local HIGH, NORMAL, LOW = '+', '', '~'
local TURNS = '++-++++-++~++-++++-++'
local careful
-- A shard without priorities, deadlines and groups has none of these sets.
local has_priorities = false
if call('EXISTS', TAG .. ':heads+', TAG .. ':heads~', TAG .. ':start', TAG .. ':rings') > 0 then
  careful = library()
  -- Tasks whose first attempt can no longer begin in time are in no backlog. expire.lua ends them.
  local late = call('ZRANGE', TAG .. ':start', '-inf', '(' .. format('%d', NOW), 'BYSCORE', 'LIMIT', 0, 500, 'WITHSCORES')
  for l = 1, #late, 2 do
    local id = late[l]
    call('ZREM', TAG .. ':start', id)
    local task = call('HEXISTS', TAG .. ':run', id) == 0 and careful.read(id)
    if task and not task.again and call('EXISTS', TAG .. ':end:' .. id) == 0 then
      local backlog = careful.backlog_of(task)
      call('ZREM', TAG .. ':ready:' .. backlog, id)
      careful.touch(backlog)
      careful.place(id, task, tonumber(late[l + 1]))
    end
  end
  -- Groups that wait for other limits than those of the request look again, and so do those that have room now.
  local waits = call('HGETALL', TAG .. ':parked')
  for p = 1, #waits, 2 do
    local task_type = waits[p]
    if not read_limits({ task_type }) then return { NOW, '0', 1, 0, {} } end
    local room = rooms and rooms[task_type .. '/']
    local is_same = (room and format('%d', room.left) or '') == waits[p + 1]
    for _, backlog in ipairs(limits[task_type] and call('SMEMBERS', TAG .. ':rings') or {}) do
      local ring = TAG .. ':ring:' .. backlog
      if string.match(backlog, '^[^@!+~/]+') ~= task_type then
        -- Another type.
      elseif is_same then
        for scope, its in pairs(rooms or {}) do
          local group = its.left > 0 and sub(scope, 1, #task_type + 1) == task_type .. '/' and sub(scope, #task_type + 2) or ''
          local since = group ~= '' and tonumber(call('ZSCORE', ring, group) or nil)
          if since and since > careful.bound then careful.touch(backlog .. '/' .. group) end
        end
      else
        local late = call('ZRANGE', ring, '(' .. format('%d', careful.bound), '+inf', 'BYSCORE')
        for _, group in ipairs(late) do careful.touch(group == '' and backlog or backlog .. '/' .. group) end
      end
    end
    if limits[task_type] and not is_same then call('HDEL', TAG .. ':parked', task_type) end
  end
  careful.write_heads()
  has_priorities = call('EXISTS', TAG .. ':heads+', TAG .. ':heads~') > 0
end

-- Backlogs are read in the order of their first tasks, a page at a time, and the oldest tasks of a page are
-- taken. A task that does not fit is passed over, so that it does not block smaller ones.
local PAGE = 64
local taken, streams, backlogs, has_suspect = {}, {}, {}, false

-- Adds the due tasks of a backlog, oldest first, as a stream: ids and scores in turn.
local function add_stream(reader, backlog, requested, route, suspect)
  local limit = suspect and 1 or math.min(requested.left, max - #taken)
  local due = call('ZRANGE', TAG .. ':ready:' .. backlog, '-inf', LAST, 'BYSCORE', 'LIMIT', 0, limit, 'WITHSCORES')
  if #due == 0 then
    -- An empty backlog is in TAG:heads by mistake.
    careful = careful or library()
    careful.touch(backlog)
    return
  end
  local stream = { due = due, at = 1, backlog = backlog, requested = requested, route = route, suspect = suspect }
  if suspect and rooms and rooms[requested.type .. '/'] then
    -- The first whose group has room.
    due = call('ZRANGE', TAG .. ':ready:' .. backlog, '-inf', LAST, 'BYSCORE', 'LIMIT', 0, 32, 'WITHSCORES')
    careful = careful or library()
    stream.due = {}
    for d = 1, #due, 2 do
      local task = careful.read(due[d])
      local room = room_of(requested.type, task and task.options and task.options.group or '')
      if not room or room.left > 0 then
        stream.due, stream.rooms = { due[d], due[d + 1] }, { room }
        break
      end
    end
    if #stream.due == 0 then return end
  end
  reader.streams[#reader.streams + 1] = stream
end

-- Adds the due tasks of the groups of a backlog by their turns, as one stream. A task counts as due with
-- the one before it if that was due later.
local function add_turns(reader, backlog, requested, route)
  local limit = math.min(requested.left, max - #taken)
  local lines, seen, page = {}, 0, nil
  repeat
    page = call('ZRANGE', TAG .. ':ring:' .. backlog, '-inf', careful.bound, 'BYSCORE', 'LIMIT', seen, limit + 1)
    seen = seen + #page
    for _, group in ipairs(page) do
      local room, name = room_of(requested.type, group), group == '' and backlog or backlog .. '/' .. group
      if not room or room.left > 0 then
        lines[#lines + 1] = { backlog = name, due = {}, at = 1, read = 0, room = room, left = room and room.left or limit }
      elseif room.wait > 0 then
        parked[name] = room.wait
      end
    end
  until not rooms or #page <= limit or #lines > limit
  local step = math.ceil(limit / math.max(1, #lines))
  local stream = { due = {}, at = 1, backlogs = {}, rooms = {}, requested = requested, route = route }
  local score, turn = 0, 0
  while turn < limit and #lines > 0 do
    local rest = {}
    for _, line in ipairs(lines) do
      if turn == limit then break end
      if line.at > #line.due and not line.is_over then
        local due = call('ZRANGE', TAG .. ':ready:' .. line.backlog, '-inf', LAST, 'BYSCORE', 'LIMIT', line.read, step, 'WITHSCORES')
        -- A group without a due task waits for its turn by mistake.
        if #due == 0 and line.read == 0 then careful.touch(line.backlog) end
        line.due, line.at, line.read, line.is_over = due, 1, line.read + step, #due < 2 * step
      end
      if line.at <= #line.due then
        score, turn = math.max(score, tonumber(line.due[line.at + 1])), turn + 1
        stream.due[2 * turn - 1], stream.due[2 * turn] = line.due[line.at], score
        stream.backlogs[2 * turn - 1], stream.rooms[2 * turn - 1] = line.backlog, line.room
        line.at, line.left = line.at + 2, line.left - 1
        if line.left > 0 then rest[#rest + 1] = line end
      end
    end
    lines = rest
  end
  if turn > 0 then reader.streams[#reader.streams + 1] = stream end
end

-- Reads a page of backlogs. Others may have older tasks than those behind `bound`. Returns false if the task
-- types are not registered.
local function read_page(reader)
  local backlogs = call('ZRANGE', reader.heads, '-inf', LAST, 'BYSCORE', 'LIMIT', reader.seen, PAGE, 'WITHSCORES')
  local is_last = #backlogs < 2 * PAGE
  reader.seen = reader.seen + #backlogs / 2
  reader.bound = is_last and math.huge or tonumber(backlogs[#backlogs])
  if not read_limits(unread_types(backlogs, 2)) then return false end
  local groups = reader.groups
  for l = 1, #backlogs, 2 do
    local name = backlogs[l]
    if sub(name, -1) == '/' then groups[sub(name, 1, -2)] = groups[sub(name, 1, -2)] or 'unread' end
  end
  for l = 1, #backlogs, 2 do
    local name = backlogs[l]
    local requested, route, suspect = requested_of(name)
    if requested and fits(requested) and not (suspect and has_suspect) then
      if sub(name, -1) == '/' then name = sub(name, 1, -2) end
      if groups[name] == nil and not is_last and not suspect then
        -- The entry of its groups may be on a later page.
        local first = tonumber(call('ZSCORE', reader.heads, name .. '/'))
        groups[name] = first and first <= LAST and 'unread' or 'none'
      end
      if groups[name] == 'unread' then
        groups[name] = 'read'
        add_turns(reader, name, requested, route)
      elseif groups[name] ~= 'read' then
        add_stream(reader, name, requested, route, suspect)
      end
    end
  end
  return true
end

-- Returns the stream of a priority that has the next task that can be leased, or nothing. A score has the low
-- bits of the order; the id decides between equal scores.
local function next_of(reader)
  while true do
    local first
    for n = #reader.streams, 1, -1 do
      local stream = reader.streams[n]
      pass_over(stream)
      if stream.at > #stream.due or not fits(stream.requested) or stream.suspect and has_suspect then
        table.remove(reader.streams, n)
      else
        local score = tonumber(stream.due[stream.at + 1])
        stream.score = score
        if not first or score < first.score or score == first.score and stream.due[stream.at] < first.due[first.at] then
          first = stream
        end
      end
    end
    if first and first.score <= reader.bound then return first end
    if reader.bound == math.huge then return nil end
    read_page(reader)
  end
end

local readers = {}
for _, priority in ipairs(has_priorities and { HIGH, NORMAL, LOW } or { NORMAL }) do
  readers[priority] = { heads = TAG .. ':heads' .. priority, seen = 0, streams = {}, bound = -1, groups = {} }
  if not read_page(readers[priority]) then
    if careful then careful.write() end
    return { NOW, '0', 1, 0, {} }
  end
end

local function take(stream)
  local requested, n = stream.requested, #taken + 1
  local room = stream.rooms and stream.rooms[stream.at]
  if room then room.left = room.left - 1 end
  taken[n], streams[n] = stream.due[stream.at], stream
  backlogs[n] = stream.backlog or stream.backlogs[stream.at]
  stream.at = stream.at + 2
  requested.left = requested.left - 1
  available.bytes, available.slots = available.bytes - requested.bytes, available.slots - requested.slots
  has_suspect = has_suspect or stream.suspect
end

local normal = readers[NORMAL]
if not has_priorities and #normal.streams == 1 and normal.bound == math.huge then
  -- Most often the tasks of one backlog wait.
  local stream = normal.streams[1]
  pass_over(stream)
  while #taken < max and stream.at <= #stream.due and fits(stream.requested) do take(stream) end
end
while #taken < max do
  local stream
  if has_priorities then
    local turn = (shard[6] + #taken) % #TURNS + 1
    turn = sub(TURNS, turn, turn)
    stream = next_of(readers[turn == '-' and NORMAL or turn])
    for _, priority in ipairs({ HIGH, NORMAL, LOW }) do
      stream = stream or next_of(readers[priority])
    end
  else
    stream = next_of(normal)
  end
  if not stream then break end
  take(stream)
end

local fence = format('%d', math.max(NOW * STEP, shard[5] + 1))
local more, bytes, turn, turns = 0, 0, 0, nil
local runs, removed, types = {}, {}, {}
-- Tasks of which an attempt has begun before, and may have left progress.
local tried = {}

-- Leases a task whose record was read. Events say more of it than its id if there is a tag.
local function give(k, id, record, run, was_tried, tag)
  local n, of = #leased, types[streams[k].requested.type]
  if not of then
    of = { ids = {}, leases = {}, groups = {} }
    types[streams[k].requested.type] = of
  end
  of.ids[#of.ids + 1] = id
  if tag and tag ~= '' then
    of.tagged = of.tagged or {}
    of.tagged[id] = id .. tag
  end
  leased[n + 1], leased[n + 2], leased[n + 3] = id, record, was_tried
  n = #runs
  runs[n + 1], runs[n + 2] = id, run
  bytes = bytes + #record
end

-- The same for a task with options, for one that was tried before, and for one that should not be here.
local function give_carefully(k, id, record)
  careful = careful or library()
  local stream, task = streams[k], record and careful.parse(record)
  local route = task and careful.route_of_head(record)
  if not route then
    if call('EXISTS', TAG .. ':task:' .. id) == 1 then careful.fail_damaged(id, 'it lacks what an attempt needs') end
    return
  end
  task.route, task.type = route, stream.requested.type
  if route ~= stream.route or careful.backlog_of(task) ~= backlogs[k] or careful.due_of(task) > NOW and task.due > 0 then
    return
  end
  careful.unplace(id, task)
  if task.again then tried[#tried + 1] = id end
  local tag = careful.tag_of(task.attempts + 1, task.options)
  give(k, id, record, task.order .. stream.suffix .. careful.ttl_of(task) .. tag, task.again and 1 or 0, tag)
  local group = task.options and task.options.group or '-'
  if group ~= '-' then
    local groups = types[task.type].groups
    local m = #groups
    groups[m + 1], groups[m + 2] = 0, group .. ' ' .. node .. ' ' .. id
  end
  if stream.backlogs then
    turn, turns = turn + 1, turns or {}
    turns[backlogs[k]] = turn
  end
end

local k, step = 1, tonumber(ARGV[9])
while k <= #taken and more == 0 do
  local keys, last = {}, math.min(k + step - 1, #taken)
  for j = k, last do keys[#keys + 1] = TAG .. ':task:' .. taken[j] end
  local records = call('MGET', unpack(keys))
  for j = k, last do
    local id, record, stream = taken[j], records[j - k + 1], streams[j]
    if record and #leased > 0 and bytes + #record > max_bytes then
      more = 1
      break
    end
    if not stream.suffix then
      stream.suffix = ' ' .. fence .. ' ' .. node .. ' ' .. stream.route .. ' '
      stream.plain = stream.suffix .. '-'
      stream.start = FRESH .. '\n{"lane":"' .. stream.route .. '"'
      stream.till = 16 + #stream.start
    end
    local list = removed[backlogs[j]]
    if not list then list = {}; removed[backlogs[j]] = list end
    list[#list + 1] = id
    if record and not stream.backlogs and sub(record, 17, stream.till) == stream.start and not find(sub(record, 1, 16), '%D') then
      give(j, id, record, sub(record, 1, 16) .. stream.plain, 0)
    else
      give_carefully(j, id, record)
    end
  end
  k = last + 1
end

local count = #leased / 3
if count > 0 then
  local ends = lease_end(bytes)
  if #tried > 0 then call('HDEL', TAG .. ':progress', unpack(tried)) end
  local events, e = { TAG .. ':events', 'MAXLEN', '~', 1024, '*', 'from', FROM }, 7
  local words = { format('%d', number) .. ' ' .. fence }
  for task_type, of in pairs(types) do
    local ids, list, m = of.ids, of.leases, 0
    for n = 1, #ids do
      list[m + 1], list[m + 2] = ends, ids[n]
      m = m + 2
    end
    call('ZADD', TAG .. ':leases:' .. task_type, unpack(list))
    if #of.groups > 0 then call('ZADD', TAG .. ':grouped:' .. task_type, unpack(of.groups)) end
    local text = table.concat(ids, ' ')
    words[#words + 1] = text
    if of.tagged then
      for n = 1, #ids do ids[n] = of.tagged[ids[n]] or ids[n] end
      text = table.concat(ids, ' ')
    end
    events[e + 1], events[e + 2] = 'r ' .. node, task_type .. ' ' .. text
    e = e + 2
  end
  call('HSET', TAG .. ':run', unpack(runs))
  local fields = { 'fence', fence, 'leased', shard[6] + count }
  if turn > 0 then
    -- The last turns are later than all that is due, and than all turns before.
    for backlog, at in pairs(turns) do turns[backlog] = careful.bound + at end
    fields[5], fields[6] = 'turn', format('%d', careful.bound + turn)
  end
  call('HSET', SHARD, unpack(fields))
  call('SET', CALL, table.concat(words, ' '), 'PX', 600000)
  if number_event then number_event(events) end
  call('XADD', unpack(events))
elseif repeats then
  -- An empty answer that is lost loses nothing, unless it ends a repeated call.
  call('SET', CALL, format('%d', number) .. ' ' .. fence, 'PX', 600000)
end
for k = 1, #taken do
  local group = rooms and streams[k].backlogs and string.match(backlogs[k], '/(.*)$')
  local room = group and room_of(streams[k].requested.type, group)
  if room and room.left == 0 and room.wait > 0 then parked[backlogs[k]] = room.wait end
end
for backlog, wait in pairs(parked) do
  turns = turns or {}
  turns[backlog] = (NOW + math.max(3, wait)) * STEP
  careful.touch(backlog)
  local task_type = string.match(backlog, '^[^@!+~/]+')
  call('HSET', TAG .. ':parked', task_type, format('%d', rooms[task_type .. '/'].left))
end
for backlog, ids in pairs(removed) do
  call('ZREM', TAG .. ':ready:' .. backlog, unpack(ids))
  if careful then
    careful.touch(backlog)
  else
    local first = call('ZRANGE', TAG .. ':ready:' .. backlog, 0, 0, 'WITHSCORES')[2]
    if first then call('ZADD', TAG .. ':heads', first, backlog) else call('ZREM', TAG .. ':heads', backlog) end
  end
end
if careful then
  if turns then careful.set_turns(turns) end
  careful.write()
end
return { NOW, fence, 0, more, leased }
