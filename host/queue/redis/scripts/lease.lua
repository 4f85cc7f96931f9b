-- ARGV: queue, the number of this call, 1 if it repeats a call without an answer, node, ttl, how many tasks
-- and how many bytes in all, how many bytes a slow connection carries in a millisecond, then a lease request
-- (`matcher` in common.lua).
-- Returns the time, 1 if the task types have to be registered first, 1 if due tasks were left because of
-- their bytes, and for each task the id, fencing token, attempt, m, p, t, b, 1 if this is its first attempt
-- without an error, 1 if it is a suspect, and i or nothing. A first task is returned whatever its size.
local number, again = tonumber(ARGV[2]), ARGV[3] == '1'
local node, ttl, max = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local max_bytes, rate = tonumber(ARGV[7]), tonumber(ARGV[8])
local leased, more = {}, 0

-- Returns the end of leases whose answer has so many bytes. What exceeds the limit gets the time that it
-- takes on its way.
local function lease_end(bytes) return NOW + ttl + math.floor(math.max(0, bytes - max_bytes) / rate) end

local function give(id, fence, attempt, begun, i, m, p, t, e, losses)
  local n = #leased
  leased[n + 1], leased[n + 2], leased[n + 3] = id, fence, attempt
  leased[n + 4], leased[n + 5], leased[n + 6] = m, p, t
  leased[n + 7], leased[n + 8] = begun, (attempt == 1 and not e) and 1 or 0
  leased[n + 9] = (number_of(losses) or 0) >= SUSPECT_AFTER and 1 or 0
  leased[n + 10] = i or ''
end

-- A repeated call whose first one was executed gets the same answer; the client of a cluster repeats calls
-- by itself. A call that arrives after a later one leases nothing.
local call = TAG .. ':call:' .. FROM
local known = redis.call('GET', call)
local last_number = known and tonumber(string.match(known, '^%d+'))
if last_number and last_number >= number then
  if last_number > number then return { integer(NOW), 0, 0, {} } end
  local held, bytes = {}, 0
  for id, fence in string.gmatch(known, ' (%S+) (%d+)') do
    local there = read(id, 's', 'f', 'i', 'm', 'p', 'e', 'v', 't', 'a', 'b')
    if there[1] == 'r' and there[2] == fence and there[4] and there[5] and are_numbers(there, 8, 10) then
      held[#held + 1] = id
      bytes = bytes + #there[4] + #there[5]
      give(id, fence, tonumber(there[9]), there[10], there[3], there[4], there[5], there[8], there[6], there[7])
    end
  end
  local ends = lease_end(bytes)
  for _, id in ipairs(held) do
    redis.call('HSET', key(id), 'u', integer(ends))
    add(TAG .. ':leases', ends, id)
  end
  write()
  return { integer(NOW), 0, 0, leased }
end
local requested_of, available = matcher(9)
if not requested_of then return { integer(NOW), 1, 0, {} } end

local function answer()
  local words = { integer(number) }
  for n = 1, #leased, 10 do
    words[#words + 1], words[#words + 2] = leased[n], leased[n + 1]
  end
  -- An empty answer that is lost loses nothing, unless it ends a repeated call.
  if again or #leased > 0 then
    redis.call('SET', call, table.concat(words, ' '), 'PX', 600000)
  end
  return { integer(NOW), 0, more, leased }
end

-- The priorities, the highest first, and whose turn it is in 21 leases in a row (Priority::of_turn): high,
-- normal or low.
local HIGH, NORMAL, LOW = '+', '', '~'
local TURNS = '++-++++-++~++-++++-++'

-- A shard without priorities and deadlines has none of these sets.
local has_priorities = redis.call('EXISTS', TAG .. ':heads+', TAG .. ':heads~', TAG .. ':start') > 0
if has_priorities then
  -- Tasks whose first attempt can no longer begin in time are in no backlog. expire.lua ends them.
  local late = redis.call('ZRANGE', TAG .. ':start', '-inf', '(' .. integer(NOW), 'BYSCORE', 'LIMIT', 0, 500, 'WITHSCORES')
  for l = 1, #late, 2 do
    local id = late[l]
    local there = read(id, 's', 'l', 'v', 'y', 'b')
    remove(TAG .. ':start', id)
    if there[1] == 'p' and valid_route(there[2]) and not there[5] then
      local backlog = backlog_of(there[2], there[3], there[4])
      redis.call('ZREM', backlog_key(backlog), id)
      dirty[backlog] = true
      add(TAG .. ':late', late[l + 1], id)
    end
  end
  write_heads()
  for backlog in pairs(dirty) do dirty[backlog] = nil end
  has_priorities = redis.call('EXISTS', TAG .. ':heads+', TAG .. ':heads~') > 0
end

-- Backlogs are read in the order of their first tasks, a page at a time, and the oldest tasks of a page are
-- taken. A task that does not fit is passed over, so that it does not block smaller ones.
local PAGE = 64
local taken, has_suspect = {}, false

-- Adds the due tasks of a backlog to a list, oldest first.
local function add_due(list, backlog, requested, suspect)
  local limit = suspect and 1 or math.min(requested.left, max - #taken)
  local due = redis.call('ZRANGE', backlog_key(backlog), '-inf', LAST, 'BYSCORE', 'LIMIT', 0, limit, 'WITHSCORES')
  -- An empty backlog is in TAG:heads by mistake.
  if #due == 0 then dirty[backlog] = true end
  for d = 1, #due, 2 do
    list[#list + 1] = {
      id = due[d], score = tonumber(due[d + 1]), backlog = backlog, requested = requested, suspect = suspect,
    }
  end
end

-- Adds the due tasks of the groups of a backlog to a list, by their turns. A task counts as due with the
-- one before it if that was due later.
local function add_turns(list, backlog, requested)
  local limit = math.min(requested.left, max - #taken)
  local bound = math.max(LAST, tonumber(redis.call('HGET', N, 'turn') or 0) or 0)
  local lines = {}
  local ring = TAG .. ':ring:' .. backlog
  for _, group in ipairs(redis.call('ZRANGE', ring, '-inf', bound, 'BYSCORE', 'LIMIT', 0, limit + 1)) do
    lines[#lines + 1] = { backlog = group == '' and backlog or backlog .. '/' .. group, due = {}, at = 1, read = 0 }
  end
  -- An earlier version does not keep the turn of the tasks without a group.
  if not redis.call('ZSCORE', ring, '') and redis.call('EXISTS', backlog_key(backlog)) == 1 then
    table.insert(lines, 1, { backlog = backlog, due = {}, at = 1, read = 0 })
    dirty[backlog] = true
  end
  local step = math.ceil(limit / math.max(1, #lines))
  local score, turn = 0, 0
  while turn < limit and #lines > 0 do
    local rest = {}
    for _, line in ipairs(lines) do
      if turn == limit then break end
      if line.at > #line.due and not line.is_over then
        local due = redis.call('ZRANGE', backlog_key(line.backlog), '-inf', LAST, 'BYSCORE', 'LIMIT', line.read, step, 'WITHSCORES')
        -- A group without a due task waits for its turn by mistake.
        if #due == 0 and line.read == 0 then dirty[line.backlog] = true end
        line.due, line.at, line.read, line.is_over = due, 1, line.read + step, #due < 2 * step
      end
      if line.at <= #line.due then
        score, turn = math.max(score, tonumber(line.due[line.at + 1])), turn + 1
        list[#list + 1] = {
          id = line.due[line.at], score = score, turn = turn, backlog = line.backlog, requested = requested,
        }
        line.at = line.at + 2
        rest[#rest + 1] = line
      end
    end
    lines = rest
  end
end

-- A score has the low bits of the number; the id decides between equal scores.
local function is_before(a, b)
  if a.score ~= b.score then return a.score < b.score end
  if a.turn ~= b.turn then return (a.turn or 0) < (b.turn or 0) end
  return a.id < b.id
end

-- Reads a page of backlogs. Others may have older tasks than those behind `bound`.
local function read_page(of)
  local backlogs = redis.call('ZRANGE', of.heads, '-inf', LAST, 'BYSCORE', 'LIMIT', of.seen, PAGE, 'WITHSCORES')
  local is_last = #backlogs < 2 * PAGE
  of.seen = of.seen + #backlogs / 2
  of.bound = is_last and math.huge or tonumber(backlogs[#backlogs])
  local list = {}
  for at = of.at, #of.list do list[#list + 1] = of.list[at] end
  local streams = #list
  for l = 1, #backlogs, 2 do
    local name = backlogs[l]
    if string.sub(name, -1) == '/' then
      name = string.sub(name, 1, -2)
      of.with_groups[name] = of.with_groups[name] or 'unread'
    end
  end
  for l = 1, #backlogs, 2 do
    local name = backlogs[l]
    local requested, suspect = requested_of(name)
    if requested and requested.left > 0 and fits(requested, available) and not (suspect and has_suspect) then
      if string.sub(name, -1) == '/' then name = string.sub(name, 1, -2) end
      local groups = of.with_groups[name]
      if groups == nil and not is_last and not suspect then
        -- The entry of its groups may be on a later page.
        local first = tonumber(redis.call('ZSCORE', of.heads, name .. '/'))
        groups = first and first <= LAST and 'unread' or 'none'
        of.with_groups[name] = groups
      end
      local before = #list
      if groups == 'unread' then
        of.with_groups[name] = 'read'
        add_turns(list, name, requested)
      elseif groups ~= 'read' then
        add_due(list, name, requested, suspect)
      end
      if #list > before then streams = streams + 1 end
    end
  end
  if streams > 1 then table.sort(list, is_before) end
  of.list, of.at = list, 1
end

-- Returns the next task of a priority that can be leased, and moves on to it.
local function next_of(of)
  while true do
    local head = of.list[of.at]
    while head and head.score <= of.bound do
      local requested = head.requested
      if requested.left > 0 and fits(requested, available) and not (head.suspect and has_suspect) then return head end
      of.at = of.at + 1
      head = of.list[of.at]
    end
    if of.bound == math.huge then return nil end
    read_page(of)
  end
end

-- The due tasks of each priority: those that were read, and how far.
local readers = {}
for _, priority in ipairs(has_priorities and { HIGH, NORMAL, LOW } or { NORMAL }) do
  readers[priority] = {
    heads = TAG .. ':heads' .. priority, seen = 0, list = {}, at = 1, bound = -1, with_groups = {},
  }
end
local lease_number
if has_priorities then
  lease_number = tonumber(redis.call('HGET', N, 'fence') or 0) or 0
end
while #taken < max do
  local of, head = readers[NORMAL], nil
  if has_priorities then
    local turn = (lease_number + #taken) % #TURNS + 1
    turn = string.sub(TURNS, turn, turn)
    of = readers[turn == '-' and NORMAL or turn]
    head = next_of(of)
    for _, priority in ipairs({ HIGH, NORMAL, LOW }) do
      if head then break end
      of = readers[priority]
      head = next_of(of)
    end
  else
    head = next_of(of)
  end
  if not head then break end
  of.at = of.at + 1
  local requested = head.requested
  requested.left = requested.left - 1
  available.bytes, available.slots = available.bytes - requested.bytes, available.slots - requested.slots
  has_suspect = has_suspect or head.suspect
  taken[#taken + 1] = head
end

local rows, bytes = {}, 0
for _, head in ipairs(taken) do
  local there = read(head.id, 's', 'm', 'p', 'e', 'v', 'l', 'y', 'a', 't', 'o', 'u', 'q', 'z')
  local y = there[7]
  local size = #(there[2] or '') + #(there[3] or '')
  if #rows > 0 and bytes + size > max_bytes then
    more = 1
    break
  end
  dequeue(head.id, head.backlog)
  -- A task that was deleted by hand is still in its backlog.
  if there[1] == 'p' and not (there[2] and there[3] and valid_route(there[6])
    and are_numbers(there, 8, 13) and (not y or parse_options(y))) then
    fail_damaged(head.id, 'it lacks fields that an attempt needs')
  elseif there[1] == 'p' then
    local backlog = backlog_of(there[6], there[5], y)
    if backlog ~= head.backlog or tonumber(there[11]) > NOW then
      -- An earlier version has put it into this backlog, or has left it there.
      enqueue(head.id, backlog, tonumber(there[11]), tonumber(there[12]))
    else
      rows[#rows + 1] = { head, there }
      bytes = bytes + size
    end
  end
end
if #rows == 0 then
  write()
  return answer()
end
local fence, ends = redis.call('HINCRBY', N, 'fence', #rows) - #rows, lease_end(bytes)
local lease_ends, now = integer(ends), integer(NOW)
local leases, turn = TAG .. ':leases', 0
for _, row in ipairs(rows) do
  local head, there = row[1], row[2]
  local id, options = head.id, nil
  fence = fence + 1
  local attempt, token = tonumber(there[8]) + 1, integer(fence)
  redis.call('HSET', key(id), 's', 'r', 'a', attempt, 'f', token, 'u', lease_ends, 'b', now, 'n', node)
  add(leases, lease_ends, id)
  if there[7] then
    options = redis.call('HGET', key(id), 'i')
    forget_start(id)
  end
  if head.turn then
    turn, turns = turn + 1, turns or {}
    turns[head.backlog] = turn
  end
  record_transition(id, there[6], 'p', 'r', tonumber(there[10]))
  give(id, token, attempt, now, options, there[2], there[3], there[9], there[4], there[5])
end
if turn > 0 then
  -- The last turns are later than all that is due, and than all turns before.
  local before = math.max(LAST, tonumber(redis.call('HGET', N, 'turn') or 0) or 0)
  for backlog, at in pairs(turns) do turns[backlog] = before + at end
  redis.call('HSET', N, 'turn', integer(before + turn))
end
write()
return answer()
