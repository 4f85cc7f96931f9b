-- What only some calls need: tasks with options, retries, groups, damaged records. Most calls make none of
-- these functions, since making them takes as long as some tasks.
local function library()
local integer = function(number) return format('%d', number) end
local function key(id) return TAG .. ':task:' .. id end

-- The number of losses that makes a task a suspect, as SUSPECT_AFTER of task::transition.
local SUSPECT_AFTER = 2

-- Returns the number in a text, or nothing unless it is a whole number as scripts write it. tonumber would
-- also take nan, inf and 0x10, which sorted sets and callers refuse.
local function number_of(text)
  return text and #text <= 16 and find(text, '^%d+$') and tonumber(text) or nil
end

local function type_of(route) return string.match(route, '^[^@]+') end

-- Returns a route, or nothing if it is malformed.
local function valid_route(route) return type(route) == 'string' and string.match(route, '^[^@!+~/ ]+[^!+~/ ]*$') end

-- Returns what the line of options in a record says: the time by which the first attempt has to begin, how
-- long the ended task is kept (0: neither), priority, group, unique key (-: normal, none), and the tags with
-- a space before each. Nothing if it is malformed.
local function parse_options(words)
  local by, ttl, priority, group, unique, tags = string.match(words, '^(%d+) (%d+) ([-+~]) ([^%s/]+) (%S+)(.*)$')
  by, ttl = number_of(by), number_of(ttl)
  if by and ttl then return { by = by, ttl = ttl, priority = priority, group = group, unique = unique, tags = tags } end
end

-- Parses a record: its numbers, and `again` if an attempt has begun before. Nothing if it is malformed.
-- What follows the header is left to the callers that need it.
local RECORD = '^(%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d) (%d%d%d%d%d%d%d%d%d%d%d%d%d) (%d%d%d%d%d%d%d%d%d%d) '
  .. '(%d%d%d%d) ([-+~])([fa])\n([^\n]*)\n'
local function parse(record)
  local order, due, attempts, losses, priority, again, words = string.match(record or '', RECORD)
  local options = order and (words == '' or parse_options(words))
  if not options then return nil end
  return {
    order = order, due = tonumber(due), attempts = tonumber(attempts), losses = tonumber(losses),
    priority = priority, again = again == 'a', options = words ~= '' and options or nil,
  }
end

-- Returns the part of a record behind its order.
local function header(task)
  return format(' %013d %010d %04d %s%s\n', task.due, math.min(task.attempts, 4294967295), math.min(task.losses, 9999),
    task.priority, task.again and 'a' or 'f')
end

-- Returns a record without its payload; all of it if it is damaged, nothing if its key holds another type of
-- value or none. The metadata of a task may have any size.
local function read_head(id)
  local size, head = 1024, nil
  repeat
    head = redis.pcall('GETRANGE', key(id), 0, size - 1)
    if type(head) ~= 'string' or head == '' then return nil end
    local words = find(head, '\n', 51, true)
    local meta = words and find(head, '\n', words + 1, true)
    if meta then return sub(head, 1, meta) end
    local is_whole = #head < size
    size = size * 8
  until is_whole
  return head
end

-- Returns the route that the metadata of a record says.
local function route_of_head(head)
  local meta = string.match(head or '', '^[^\n]*\n[^\n]*\n([^\n]*)')
  local is_json, submission = pcall(cjson.decode, meta or '')
  return is_json and type(submission) == 'table' and valid_route(submission.lane) or nil
end

-- Reads a task: its numbers and its route. Nothing if there is none or its record is damaged.
local function read(id)
  local head = read_head(id)
  local task, route = parse(head), route_of_head(head)
  if not (task and route) then return nil end
  task.route, task.type = route, type_of(route)
  return task
end

-- Compares a submission with the task of its id: e if it is the same, c if it is another one, nothing if
-- there is no such task.
local function compare(id, content)
  local record = redis.pcall('GET', key(id))
  if not record then return nil end
  return type(record) == 'string' and sub(record, 51) == content and 'e' or 'c'
end

-- Parses the value of a running task. Nothing if it is malformed.
local function parse_run(value)
  local order, fence, node, route, ttl, tag, cancel =
    string.match(value or '', '^(%d+) (%d+) (%S+) (%S+) ([-%d]+)([^ ]*)(.*)$')
  if not (order and #order == 16 and #fence <= 16 and valid_route(route)) then return nil end
  return {
    order = order, fence = fence, node = node, route = route, type = type_of(route), ttl = ttl, tag = tag,
    cancel = cancel ~= '' and cancel or nil,
  }
end

-- Parses the first line of what is stored of the end of a task. Nothing if there is none or it is malformed.
local function read_end(id)
  local stored = redis.pcall('GETRANGE', TAG .. ':end:' .. id, 0, 255)
  if type(stored) ~= 'string' then return nil end
  local letter, now, idle, ttl, task_type = string.match(stored, '^([cfx]) (%d+) (%d+) ([-%d]+) ([^ \n]+)\n')
  now, idle = number_of(now), number_of(idle)
  if not (now and idle and now >= idle) then return nil end
  return { letter = letter, at = now - idle, ttl = ttl, type = task_type }
end

-- Tasks that this call purges, in turn and by id; write() deletes what is stored of them.
local gone, is_gone = {}, {}

-- Returns the letter of the state of a task and its type; nothing if there is no such task.
local function state_of(id)
  if is_gone[id] or call('EXISTS', key(id)) == 0 then return nil end
  local ended = read_end(id)
  if ended then return ended.letter, ended.type end
  local value = call('HGET', TAG .. ':run', id)
  local run = parse_run(value)
  if value then return 'r', run and run.type or 'unknown' end
  return 'p', type_of(route_of_head(read_head(id)) or 'unknown')
end

local UNIQUE = TAG .. ':unique'
-- For how long a reserved key belongs to a task that is not known to be stored, as GRACE of key_holder.rs;
-- after how long a key is looked at for the first time (key_due.lua); and for how long a reservation of the
-- past is void that another task has found without its task.
local GRACE, LOOK, VOID = 10000, 10000, 10000

-- Returns the name of the unique key of a submission.
local function unique_key(route, content)
  return type_of(route) .. ' ' .. parse_options(string.match(content, '^[^\n]*')).unique
end

-- Returns the task that keeps others from having a unique key, or '' if there may be one on its way, or
-- nothing; as Holder::verdict of key_holder.rs.
local function holder_of(name, id)
  local held = call('HGET', UNIQUE, name) or ''
  local holder, since, till, stored = string.match(held, '^(%S+) %S+ (%d+) (%d+) (%d)$')
  if not holder or holder == id then return nil end
  local is_in_time, letter = NOW < tonumber(till), state_of(holder)
  if is_in_time and stored == '1' then return holder end
  local task = letter and read(holder)
  if task and task.options and task.type .. ' ' .. task.options.unique == name
    and (letter == 'p' or letter == 'r' or is_in_time) then
    return holder
  end
  if stored ~= '1' and NOW - tonumber(since) < GRACE then return '' end
  call('SET', TAG .. ':void:' .. holder, integer(NOW + VOID), 'PX', 60000)
end

-- Gives a unique key to a stored task, for so long at least.
local function take_key(name, id, token, time)
  local ends = NOW + time
  local holder, till = string.match(call('HGET', UNIQUE, name) or '', '^(%S+) %S+ %d+ (%d+) %d$')
  if holder == id then ends = math.max(ends, tonumber(till)) end
  call('HSET', UNIQUE, name, id .. ' ' .. token .. ' ' .. integer(NOW) .. ' ' .. integer(ends) .. ' 1')
  call('ZADD', TAG .. ':held', integer(math.max(ends, NOW + LOOK)), name)
end

-- Changes are gathered here and written with one call for each set: a call costs more than an element.
local added, removed, events, types = {}, {}, {}, {}
local open = 0
-- Backlogs whose first task may have changed, and the new turns of those with groups that had one (or
-- nothing).
local dirty, turns = {}, nil
-- Entries of TAG:index, true if they may be new, and false if they may have lost their last task.
local indexed = {}

-- Adds an entry, of which the score is a number or its text.
local function add(set, score, id)
  set = TAG .. set
  local list = added[set]
  if not list then list = {}; added[set] = list end
  local n = #list
  list[n + 1] = type(score) == 'number' and integer(score) or score
  list[n + 2] = id
end

local function remove(set, id)
  set = TAG .. set
  local list = removed[set]
  if not list then list = {}; removed[set] = list end
  list[#list + 1] = id
end

-- Returns what an event has of a task behind its id: the number of the attempt that it is about, unless that is 1
-- (0: none), and the group. A task that is pending for the first time has no attempt, and no number.
local function tag_of(attempt, options)
  local group = options and options.group or '-'
  return (attempt ~= 1 and '#' .. integer(attempt) or '') .. (group ~= '-' and '/' .. group or '')
end

-- Records that a task has entered a state, on a node if that is known. k is a running one that is to be
-- cancelled, d one that has failed because its record is damaged.
local function emit(id, task_type, letter, node)
  types[task_type] = true
  if node then letter = letter .. ' ' .. node end
  local last = events[#events]
  local what = letter .. ' ' .. task_type
  if last and last.what == what then
    last[#last + 1] = id
  else
    events[#events + 1] = { id, what = what, letter = letter, type = task_type }
  end
end

-- Returns the backlog of a task.
local function backlog_of(task)
  local suspect = task.losses >= SUSPECT_AFTER
  local backlog = suspect and task.route .. '!' or task.route
  if task.priority ~= '-' then backlog = backlog .. task.priority end
  local group = task.options and task.options.group or '-'
  if group ~= '-' and not suspect then backlog = backlog .. '/' .. group end
  return backlog
end

-- Returns the time and the score of a pending task.
local function due_of(task) return task.due > 0 and task.due or math.floor(tonumber(task.order) / STEP) end
local function score_of(task)
  local order = tonumber(task.order)
  return task.due > 0 and task.due * STEP + order % STEP or order
end

-- Whether a pending task has its place in the order of submission in no backlog, so that TAG:others has it.
local function is_other(task)
  return task.due > 0 or task.losses >= SUSPECT_AFTER or (task.options and task.options.group or '-') ~= '-'
end

-- Puts a pending task where leases and lists find it. Its first attempt has to begin by `by`, if that is a
-- time.
local function place(id, task, by)
  local is_late = by and by < NOW
  if by then add(is_late and ':late:' .. task.type or ':start', by, id) end
  if is_late then
    types[task.type] = true
  else
    local backlog = backlog_of(task)
    add(':ready:' .. backlog, score_of(task), id)
    dirty[backlog] = true
  end
  if is_late or is_other(task) then add(':others:' .. task.type, task.order, id) end
end

-- Removes a pending task from there.
local function unplace(id, task)
  local backlog = backlog_of(task)
  remove(':ready:' .. backlog, id)
  dirty[backlog] = true
  remove(':others:' .. task.type, id)
  if task.options and task.options.by > 0 then
    remove(':start', id)
    remove(':late:' .. task.type, id)
  end
end

-- Calls `change` with each entry of TAG:index that a task with these options belongs to.
local function each_index(options, change)
  if options.group ~= '-' then change('g:' .. options.group) end
  for tag in string.gmatch(options.tags, '%S+') do change('t:' .. tag) end
end

-- Stores a new task with options, which is due at a time. Its first attempt has to begin by `by`, if that is
-- a time.
local function create(id, order, route, content, due, by)
  local options = parse_options(sub(content, 1, find(content, '\n', 1, true) - 1))
  local task = {
    order = order, due = due > math.floor(order / STEP) and due or 0, attempts = 0, losses = 0,
    priority = options.priority, options = options, route = route, type = type_of(route),
  }
  call('SET', key(id), order .. header(task) .. content)
  each_index(options, function(entry)
    add(':index:' .. entry, order, id)
    indexed[entry] = true
  end)
  place(id, task, by)
  emit(id .. tag_of(1, options), task.type, 'p')
end

-- Records the end of a task, which is what the node has encoded or `data` of a script. `ttl` is how long the
-- ended task is kept: - if it has no options, 0 if they do not say.
local function finish(id, order, task_type, letter, ttl, data)
  call('SET', TAG .. ':end:' .. id, letter .. ' ' .. integer(NOW) .. ' ' .. integer(IDLE) .. ' ' .. ttl .. ' ' .. task_type
    .. '\n' .. data)
  local set = letter .. ':' .. task_type
  add(':ended:' .. set, order, id)
  local kept = ttl ~= '-' and tonumber(ttl) or 0
  if kept > 0 then
    add(':kept', NOW - IDLE + kept, id)
  else
    call('RPUSH', TAG .. ':purge:' .. set, integer(NOW - IDLE) .. ' ' .. id)
  end
end

-- Removes what is stored of the end of a task. Its entry in the list of tasks to purge stays without effect.
local function unend(id, ended)
  call('UNLINK', TAG .. ':end:' .. id)
  remove(':ended:' .. ended.letter .. ':' .. ended.type, id)
  remove(':kept', id)
end

-- Purges an ended task, unless this call has done so. Its entry in a list of tasks to purge stays without effect.
local function purge(id, ended)
  if is_gone[id] then return false end
  is_gone[id] = true
  gone[#gone + 1] = id
  remove(':ended:' .. ended.letter .. ':' .. ended.type, id)
  if ended.ttl == '-' then return true end
  remove(':kept', id)
  local task = parse(read_head(id))
  if task and task.options then
    each_index(task.options, function(entry)
      remove(':index:' .. entry, id)
      indexed[entry] = indexed[entry] or false
    end)
  end
  return true
end

-- Deletes what is stored of the purged tasks.
local function delete_gone()
  if #gone == 0 then return end
  local keys = {}
  for _, id in ipairs(gone) do
    for _, kind in ipairs({ ':task:', ':end:', ':past:' }) do keys[#keys + 1] = TAG .. kind .. id end
  end
  call('UNLINK', unpack(keys))
  call('HDEL', TAG .. ':progress', unpack(gone))
end

-- Writes what has changed of a task into its record.
local function store(id, task) call('SETRANGE', key(id), 16, header(task)) end

-- How many attempts of a task are kept beside the one that ended it.
local KEPT = 31

-- Changes what the earlier attempts of a task have left. `mark` is of the last outcome, `attempt` is an attempt
-- that ended at a time, as `NUMBER NODE JSON` (nothing: no attempt is added), and `status` is what the task says
-- of them: '' what the latest one left, nothing what it said before.
local function remember(id, mark, at, attempt, status)
  local past = redis.pcall('GET', TAG .. ':past:' .. id)
  if type(past) ~= 'string' then past = '' end
  local count, said, lines = string.match(past, '^[^\n]* (%d+)\n([^\n]*)\n(.*)$')
  -- A task of an earlier format has left one attempt, of which no more is known.
  if not count then count, said, lines = 0, string.match(past, '^[^\n]*\n([^\n]*)') or '', '' end
  if attempt and not status and said == '' then
    said = string.match(lines, '^%S+ %S+ %S+ ([^\n]*)') or ''
  end
  if attempt then
    count = count + 1
    lines = integer(at) .. ' ' .. attempt .. '\n' .. lines
    local last = 0
    for _ = 1, KEPT do last = last and find(lines, '\n', last + 1, true) end
    if last then lines = sub(lines, 1, last) end
  end
  call('SET', TAG .. ':past:' .. id, mark .. ' ' .. integer(count) .. '\n' .. (status or said) .. '\n' .. lines)
end

-- Whether what an attempt left belongs into the history: not if its lease was given back before it began.
local function is_attempt(left)
  local is_unused = find(left, '"how":"released"', 1, true) and not find(left, '"by":', 1, true)
  return find(left, '"fence":', 1, true) and not is_unused
end

-- Makes a task that is no longer running or ended pending again.
local function again(id, task)
  task.again = true
  store(id, task)
  place(id, task)
end

local function ttl_of(task) return task.options and integer(task.options.ttl) or '-' end

-- Fails a task whose record is damaged, with the class `corrupt`, and returns its type. `why` says what is
-- wrong. A header that cannot be read is replaced, so that the task can be read and purged; the rest of the
-- record stays as it is. A task that has ended does not end again: the damage may have hidden an entry of it
-- from the call that ended it.
local function fail_damaged(id, why)
  local run, ended = parse_run(call('HGET', TAG .. ':run', id)), read_end(id)
  call('HDEL', TAG .. ':run', id)
  if run then remove(':leases:' .. run.type, id) end
  if ended then return ended.type end
  local record = redis.pcall('GET', key(id))
  if type(record) ~= 'string' then
    if record then call('UNLINK', key(id)) end
    record = ''
  end
  local task = parse(record)
  local route = route_of_head(record) or run and run.route or 'unknown'
  if not task then
    local order = string.match(record, '^(%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d)') or run and run.order or integer(NOW * STEP)
    -- It does not look like one of which no attempt has begun, which a lease would not read.
    task = { order = order, due = 0, attempts = 0, losses = 0, priority = '-', again = true }
    call('SET', key(id), order .. header(task) .. sub(record, 51))
  end
  task.route, task.type = route, type_of(route)
  unplace(id, task)
  local group = task.options and task.options.group or '-'
  if run and group ~= '-' then remove(':grouped:' .. run.type, group .. ' ' .. run.node .. ' ' .. id) end
  open = open - 1
  call('DEL', TAG .. ':past:' .. id)
  call('HDEL', TAG .. ':progress', id)
  finish(id, task.order, task.type, 'f', ttl_of(task), cjson.encode({
    error = 'the record of this task in Redis is damaged: ' .. why, class = 'corrupt',
  }) .. '\n')
  emit(id, task.type, 'd')
  return task.type
end

local function ready(backlog) return TAG .. ':ready:' .. backlog end

-- Returns the set that has the entry of a backlog.
local function heads_of(backlog)
  local last = sub(backlog, -1)
  return (last == '+' or last == '~') and TAG .. ':heads' .. last or TAG .. ':heads'
end

-- The last turn that was given to a group. The next are later than all that is due, and than it.
local BOUND = math.max(LAST, shard[7])

-- Updates the turns of a backlog's groups, of which `firsts` has the score of the first task, or false if
-- there is none.
--
-- A group waits since its first task became due, or since its last turn. So groups take turns, and a flood
-- of one delays the others by one turn. A turn counts as later than all that is due, by a counter beside the
-- time.
local function write_turns(backlog, firsts)
  local ring, heads = TAG .. ':ring:' .. backlog, heads_of(backlog)
  if firsts[''] == nil and call('EXISTS', ring) == 0 then
    firsts[''] = call('ZRANGE', ready(backlog), 0, 0, 'WITHSCORES')[2] or false
  end
  for group, first in pairs(firsts) do
    local at = tonumber(first)
    if not at then
      call('ZREM', ring, group)
    else
      if at <= LAST then
        local turn = turns and turns[group == '' and backlog or backlog .. '/' .. group]
        local since = not turn and tonumber(call('ZSCORE', ring, group))
        at = turn or not (since and since <= BOUND) and at
      end
      if at then call('ZADD', ring, integer(at), group) end
    end
  end
  local waiting = call('ZRANGE', ring, 0, 1, 'WITHSCORES')
  if #waiting == 0 or #waiting == 2 and waiting[1] == '' then
    call('DEL', ring)
    call('SREM', TAG .. ':rings', backlog)
    call('ZREM', heads, backlog .. '/')
    return
  end
  local first = firsts[waiting[1]]
  if first == nil then
    local of_group = waiting[1] == '' and backlog or backlog .. '/' .. waiting[1]
    first = call('ZRANGE', ready(of_group), 0, 0, 'WITHSCORES')[2]
  end
  call('SADD', TAG .. ':rings', backlog)
  -- A group that waits for its limits is due when it looks again. A turn is never as late.
  if tonumber(waiting[2]) > BOUND + STEP then first = waiting[2] end
  call('ZADD', heads, first or waiting[2], backlog .. '/')
end

-- Updates the entries of backlogs whose first task may have changed.
local function write_heads()
  local with_groups = {}
  for backlog in pairs(dirty) do
    local first = call('ZRANGE', ready(backlog), 0, 0, 'WITHSCORES')[2] or false
    local slash = string.find(backlog, '/', 1, true)
    local of, group = backlog, ''
    if slash then
      of, group = string.sub(backlog, 1, slash - 1), string.sub(backlog, slash + 1)
    elseif first then
      call('ZADD', heads_of(backlog), first, backlog)
    else
      call('ZREM', heads_of(backlog), backlog)
    end
    if slash or not string.find(backlog, '!', 1, true) and call('EXISTS', TAG .. ':ring:' .. backlog) == 1 then
      with_groups[of] = with_groups[of] or {}
      with_groups[of][group] = first
    end
  end
  for backlog, firsts in pairs(with_groups) do write_turns(backlog, firsts) end
end


local function write_events()
  if #events == 0 then return end
  local words = { TAG .. ':events', 'MAXLEN', '~', 1024, '*', 'from', FROM }
  for _, its in ipairs(events) do
    words[#words + 1], words[#words + 2] = its.letter, its.type .. ' ' .. table.concat(its, ' ')
  end
  if number_event then number_event(words) end
  call('XADD', unpack(words))
end

local function write()
  delete_gone()
  for set, list in pairs(removed) do call('ZREM', set, unpack(list)) end
  for set, list in pairs(added) do call('ZADD', set, unpack(list)) end
  write_heads()
  for entry, is_new in pairs(indexed) do
    if is_new then
      call('ZADD', TAG .. ':index', 0, entry)
    elseif call('EXISTS', TAG .. ':index:' .. entry) == 0 then
      call('ZREM', TAG .. ':index', entry)
    end
  end
  local names = {}
  for task_type in pairs(types) do names[#names + 1] = task_type end
  if #names > 0 then call('SADD', TAG .. ':types', unpack(names)) end
  if open ~= 0 then call('HINCRBY', SHARD, 'open', open) end
  write_events()
end

return {
  SUSPECT_AFTER = SUSPECT_AFTER, number_of = number_of, type_of = type_of, valid_route = valid_route,
  parse = parse, parse_run = parse_run, read = read, read_head = read_head, route_of_head = route_of_head,
  compare = compare, unique_key = unique_key, holder_of = holder_of, take_key = take_key,
  create = create, place = place, unplace = unplace, again = again, finish = finish, store = store,
  read_end = read_end, state_of = state_of, unend = unend, purge = purge, tag_of = tag_of, remember = remember,
  is_attempt = is_attempt,
  fail_damaged = fail_damaged, backlog_of = backlog_of, due_of = due_of, score_of = score_of,
  is_other = is_other, ttl_of = ttl_of, each_index = each_index, indexed = indexed, dirty = dirty,
  add = add, remove = remove, emit = emit, write = write, write_heads = write_heads, bound = BOUND,
  touch = function(backlog) dirty[backlog] = true end,
  closed = function() open = open - 1 end,
  opened = function() open = open + 1 end,
  set_turns = function(given) turns = given end,
}
end
