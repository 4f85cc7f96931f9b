-- The beginning of every script. One call changes one shard, and Redis runs it as a whole or not at all.
-- All keys have the shard's hash tag, KEYS[1], so they are in one slot of a Redis Cluster. The tasks that
-- a lease touches are only known inside the script, so their keys cannot be declared one by one.
--
-- The key KEYS[1] itself never exists, and KEYS[2] is TAG:n. While a slot moves from one node of a cluster
-- to another, a script would fail halfway at a key that has moved, or find nothing on the new node and
-- start from scratch there. With two declared keys of which one is missing, Redis refuses the script as a
-- whole (TRYAGAIN) until the slot has moved.
--
-- TAG:t:ID      hash: one task, the source of truth about it (fields below)
-- TAG:r:B       sorted set: a backlog: pending tasks by due time. Its name B is ROUTE for the tasks of a
--               route; ROUTE+ and ROUTE~ for those of high and low priority; with /GROUP behind that for
--               those of a group; ROUTE!, ROUTE!+ and ROUTE!~ for suspects, of which a node runs one at a
--               time. Names have none of these characters.
-- TAG:ring:B    sorted set: the groups of backlog B that have a pending task, and '' for its tasks without
--               a group: by the time since which they wait for their turn, or by the score of their first
--               task if that is not due. It exists while a group has a task.
-- TAG:heads     sorted set: the backlogs of normal priority that have a task, by the score of their first
--               task; groups have one entry for all, B/, with the score of the first task whose turn it is
-- TAG:heads+    sorted set: the same of high priority, and TAG:heads~ of low priority
-- TAG:start     sorted set: tasks whose first attempt has to begin by a time, by that time
-- TAG:late      sorted set: those of which a lease or a submission has found that it has passed. They are
--               in no backlog, and expire.lua ends them
-- TAG:leases    sorted set: running tasks, by the end of their lease
-- TAG:ended     sorted set: ended tasks, by the time of their end less `idle`
-- TAG:kept      sorted set: ended tasks that are kept for a time of their own, by its end less `idle`
-- TAG:all       sorted set: all tasks, by the order of submission
-- TAG:dead:S    sorted set: failed (S = f) and cancelled (S = x) tasks, by the order of submission
-- TAG:index:I   sorted set: the tasks of a group (I = g:GROUP) or with a tag (I = t:TAG), by the order of
--               submission; TAG:index has every I
-- TAG:unique    hash: the unique keys of this shard: under `TYPE KEY` the id of the task that has it, a
--               token, the times since when and until when at least, and 1 once the task is stored. The
--               task itself may be in another shard (key_reserve.lua)
-- TAG:held      sorted set: the same keys, by the time of the next look for the end of their task
-- TAG:void:ID   string: the time up to which submissions of the task with a unique key are void
--               (key_holders.lua); for a minute
-- TAG:n         hash: counters: how many tasks of a type are in a state, how many are open, the last
--               order, number, fencing token and turn of a group, the progress of the reconciliation
--               (reconcile.lua), when
--               a node last queried expired leases and from when on they count (expired.lua), the identity
--               of the store (open.lua), how many bytes submissions may take (submit.lua), skew and idle
--               (below)
-- TAG:pass      hash: the counts of the reconciliation so far
-- TAG:events    stream: changes, bounded
-- TAG:call:Q    string: the number of queue Q's last lease call and the tasks of its answer; for minutes
-- TAG:want:Q    hash: the task types of queue Q's node (register_types.lua); for seconds
--
-- Fields of a task: m head: the submission without its payload (JSON), p payload, l route, o place in the
-- order of submission, q number, t time of submission, s state (p r c f x), u due time, end of the lease
-- or time of the end, a attempt, f fencing token, b start of the attempt, n node of the last lease,
-- k cancellation requested, e error, w node, plugin and version that ran it (JSON), r result, z number of
-- ends, g mark of the last outcome (finish.lua), d class of the error if it has one, v losses that were
-- not charged. Only tasks with options have: i the options as given (JSON), y those that scripts need, as
-- words: the time by which the first attempt has to begin, how long the ended task is kept (0: neither),
-- priority, group and unique key (-: normal, none), and the tags.
--
-- Nodes of a version that knows format 1 find backlogs named ROUTE and ROUTE! alone, and know no options.
-- They may put a task with options into such a backlog: a lease moves it into its own.

local TAG = KEYS[1]
local N = TAG .. ':n'
local FROM = ARGV[1] -- the id of the calling queue, which skips its own events

-- A score is the due time with the low bits of the task's number, so that tasks due together are in the
-- order of submission. The 53 bits of a double suffice until the year 2109.
local STEP = 2048
local clock = redis.call('TIME')
local WALL = clock[1] * 1000 + math.floor(clock[2] / 1000)
-- The queue's time follows the clock of Redis, but never goes back: if the clock is set back, the time
-- stands still until a node queries expired leases, as each does once a second, and `skew` compensates for
-- it (expired.lua). `idle` is the time beyond an hour in which no node queried them, or by which the clock
-- was set forward: ended tasks do not age by it.
local time = redis.call('HMGET', N, 'looked', 'skew', 'idle')
local LOOKED = tonumber(time[1] or 0) or 0
local SKEW, IDLE = tonumber(time[2] or 0) or 0, tonumber(time[3] or 0) or 0
local NOW = math.max(WALL + SKEW, LOOKED)
-- The score of a task that is due is not above this.
local LAST = NOW * STEP + STEP - 1

local function key(id) return TAG .. ':t:' .. id end
local function backlog_key(route) return TAG .. ':r:' .. route end
-- '%d' takes a quarter of the time of '%.0f'.
local function integer(number) return string.format('%d', number) end

-- Valid routes and their types. Most tasks of a call have the same few routes.
local types = {}

-- Returns the type of a route.
local function type_of(route) return types[route] or string.match(route, '^[^@!+~/]+') end

-- Returns fields of a record; none if the key holds another type of value.
local function read(id, ...)
  local there = redis.pcall('HMGET', key(id), ...)
  return there.err and {} or there
end

-- Compares a submission, of which m is the head, p the payload and i the options (or ''), with the task of
-- its id: e if it is the same, c if it is another one, nothing if there is no such task.
local function compare(id, m, p, i)
  local there = redis.pcall('HMGET', key(id), 'm', 'p', 's', 'i')
  if there.err then return 'c' end
  if not (there[1] or there[3]) then return nil end
  return (there[1] == m and there[2] == p and (there[4] or '') == i) and 'e' or 'c'
end

-- Returns the number in a field of a record, or nothing unless it is a whole number as scripts write it.
-- tonumber would also take nan, inf and 0x10, which sorted sets and callers refuse. A number of the
-- script's own is returned as it is.
local function number_of(text)
  if type(text) == 'number' then return text end
  return text and #text <= 16 and string.find(text, '^%d+$') and tonumber(text) or nil
end

-- Whether these values of a list are such numbers.
local function are_numbers(list, first, last)
  for n = first, last do
    if not number_of(list[n]) then return false end
  end
  return true
end

-- Returns the route of a record, or nothing if it is malformed.
local function valid_route(route)
  if not route or types[route] then return route end
  types[route] = string.match(route, '^([^@!+~/]+)[^!+~/]*$')
  return types[route] and route
end

-- Returns what field y of a record says: the time by which the first attempt has to begin, how long the
-- ended task is kept, priority, group, unique key, and the tags with a space before each. Nothing if it is
-- malformed.
local function parse_options(y)
  local by, ttl, priority, group, unique, tags = string.match(y, '^(%d+) (%d+) ([-+~]) ([^%s/]+) (%S+)(.*)$')
  by, ttl = number_of(by), number_of(ttl)
  if by and ttl then return by, ttl, priority, group, unique, tags end
end

-- Changes are gathered here and written with one call for each set: a call costs more than an element.
local counted, open, events = {}, 0, {}
local added, removed = {}, {}
-- Changes of tasks that the reconciliation has counted already, and the order up to which it has counted.
local passed, pass = {}, nil

-- Backlogs whose first task may have changed, and the new turns of those with groups that had one (or
-- nothing).
local dirty, turns = {}, nil
-- Entries of TAG:index, true if they may be new, and false if they may have lost their last task (or nothing).
local indexed

-- The number of losses that makes a task a suspect, as SUSPECT_AFTER of task::transition.
local SUSPECT_AFTER = 2

-- Returns the backlog of a task with so many losses and the field y.
local function backlog_of(route, losses, y)
  local suspect = losses and (number_of(losses) or 0) >= SUSPECT_AFTER
  local backlog = suspect and route .. '!' or route
  if not y then return backlog end
  local _, _, priority, group = parse_options(y)
  if priority and priority ~= '-' then backlog = backlog .. priority end
  if group and group ~= '-' and not suspect then backlog = backlog .. '/' .. group end
  return backlog
end

-- Returns the set that has the entry of a backlog.
local function heads_of(backlog)
  local last = string.sub(backlog, -1)
  return (last == '+' or last == '~') and TAG .. ':heads' .. last or TAG .. ':heads'
end

-- Adds an entry, of which the score is a number or its text.
local function add(set, score, id)
  local list = added[set]
  if not list then list = {}; added[set] = list end
  local n = #list
  list[n + 1] = type(score) == 'number' and integer(score) or score
  list[n + 2] = id
end

local function remove(set, id)
  local list = removed[set]
  if not list then list = {}; removed[set] = list end
  list[#list + 1] = id
end

local function count(state, task_type, by, order)
  local field = state .. ' ' .. task_type
  counted[field] = (counted[field] or 0) + by
  pass = pass or tonumber(redis.call('HGET', N, 'pass') or -1)
  if order and order <= pass then passed[field] = (passed[field] or 0) + by end
  if state == 'p' or state == 'r' then open = open + by end
end

local function emit(id, task_type, state)
  events[#events + 1] = state .. ' ' .. id .. ' ' .. task_type
end

-- Counts and emits a change of state; nil stands for a task that does not exist. `order` is its place in
-- the order of submission.
local function record_transition(id, route, from, to, order)
  local task_type = type_of(route)
  if from then count(from, task_type, -1, order) end
  if to then count(to, task_type, 1, order); emit(id, task_type, to) end
end

local function enqueue(id, backlog, due, number)
  add(backlog_key(backlog), due * STEP + number % STEP, id)
  dirty[backlog] = true
end

local function dequeue(id, backlog)
  remove(backlog_key(backlog), id)
  dirty[backlog] = true
end

-- Reads a lease request from ARGV[i] on: the number under which the task types were registered
-- (register_types.lua), the only requested type (or nothing), the available bytes and pool slots, 1 if a
-- suspect is allowed, the number of targets, the targets as routes end with them, and types with their
-- remaining numbers. Returns a function from a backlog to the requested type, and the available resources;
-- nothing if the task types are not registered any more.
local function matcher(i)
  local registered = TAG .. ':want:' .. FROM
  if redis.call('HGET', registered, '') ~= ARGV[i] then return nil end
  local only, suspects = ARGV[i + 1], ARGV[i + 4] == '1'
  local available = { bytes = tonumber(ARGV[i + 2]), slots = tonumber(ARGV[i + 3]) }
  local targets, left, types = {}, {}, {}
  local last = i + 5 + tonumber(ARGV[i + 5])
  for t = i + 6, last do targets[ARGV[t]] = true end
  for t = last + 1, #ARGV, 2 do left[ARGV[t]] = tonumber(ARGV[t + 1]) end

  local function of_type(task_type)
    local limits = (only == '' or only == task_type) and redis.call('HGET', registered, task_type)
    if not limits then return false end
    local max, cluster, bytes, slots = string.match(limits, '^(%S+) (%S+) (%S+) (%S+)$')
    local requested = { left = left[task_type] or tonumber(max), bytes = tonumber(bytes), slots = tonumber(slots) }
    cluster = tonumber(cluster)
    if cluster >= 0 then
      local running = tonumber(redis.call('HGET', N, 'r ' .. task_type) or 0)
      requested.left = math.min(requested.left, math.max(0, cluster - running))
    end
    return requested
  end

  return function(backlog)
    local route, mark = string.match(backlog, '^([^!+~/]+)(!?)')
    local task_type, suspect = route and type_of(route), mark == '!'
    if not task_type or suspect and not suspects or not targets[string.sub(route, #task_type + 1)] then return nil end
    if types[task_type] == nil then types[task_type] = of_type(task_type) end
    return types[task_type] or nil, suspect
  end, available
end

local function fits(requested, available)
  return requested.bytes <= available.bytes and requested.slots <= available.slots
end

-- Adds an ended task to the sets of ended tasks.
local function index_ended(id, state, order, y)
  local _, ttl = nil, 0
  if y then _, ttl = parse_options(y) end
  if ttl and ttl > 0 then add(TAG .. ':kept', NOW - IDLE + ttl, id) else add(TAG .. ':ended', NOW - IDLE, id) end
  if state ~= 'c' then add(TAG .. ':dead:' .. state, order, id) end
end

-- Calls `change` with each entry of TAG:index that a task with the field y belongs to.
local function each_index(y, change)
  indexed = indexed or {}
  local _, _, _, group, _, tags = parse_options(y)
  if group and group ~= '-' then change('g:' .. group) end
  for tag in string.gmatch(tags or '', '%S+') do change('t:' .. tag) end
end

-- Removes a task from the sets of tasks whose first attempt has to begin by a time.
local function forget_start(id)
  remove(TAG .. ':start', id)
  remove(TAG .. ':late', id)
end

-- Returns the route in the head of a record.
local function route_of_head(head)
  local is_json, submission = pcall(cjson.decode, head)
  return is_json and type(submission) == 'table' and type(submission.lane) == 'string'
    and valid_route(submission.lane)
end

-- Fails a task whose record is damaged, with the class `corrupt`, and returns its route. `why` says what
-- is wrong. Required fields that are missing get a default, so that the task can be read and purged; payload
-- and head stay as they are. Counters that the record does not determine are left to the reconciliation.
local function fail_damaged(id, why)
  local task = key(id)
  local there = redis.pcall('HMGET', task, 's', 'l', 'm', 'o', 'q', 't', 'a', 'z', 'y')
  if there.err then
    redis.call('UNLINK', task)
    there = {}
  end
  local state, known, y = there[1], valid_route(there[2]) or route_of_head(there[3] or ''), there[9]
  local route = known or 'unknown'
  local order = number_of(there[4]) or tonumber(redis.call('ZSCORE', TAG .. ':all', id)) or NOW * STEP
  local function or_default(text, default) return integer(number_of(text) or default) end
  redis.call('HSET', task, 's', 'f', 'l', route, 'o', integer(order), 'u', integer(NOW), 'q', or_default(there[5], 0),
    't', or_default(there[6], NOW), 'a', or_default(there[7], 0), 'z', integer((number_of(there[8]) or 0) + 1),
    'e', 'the record of this task in Redis is damaged: ' .. why, 'd', 'corrupt')
  redis.call('HDEL', task, 'k')
  remove(TAG .. ':leases', id)
  dequeue(id, route)
  dequeue(id, route .. '!')
  if y then
    dequeue(id, backlog_of(route, nil, y))
    dequeue(id, backlog_of(route, SUSPECT_AFTER, y))
    forget_start(id)
  end
  add(TAG .. ':all', order, id)
  index_ended(id, 'f', order, y)
  if known and (state == 'p' or state == 'r') then count(state, type_of(route), -1, order) end
  count('f', type_of(route), 1, order)
  emit(id, type_of(route), 'd')
  return route
end

-- Updates the turns of a backlog's groups, of which `firsts` has the score of the first task, or false if
-- there is none.
--
-- A group waits since its first task became due, or since its last turn. So groups take turns, and a flood
-- of one delays the others by one turn. A turn counts as later than all that is due, by a counter beside the
-- time.
local function write_turns(backlog, firsts)
  local ring, heads = TAG .. ':ring:' .. backlog, heads_of(backlog)
  if firsts[''] == nil and redis.call('EXISTS', ring) == 0 then
    firsts[''] = redis.call('ZRANGE', backlog_key(backlog), 0, 0, 'WITHSCORES')[2] or false
  end
  local bound = math.max(LAST, tonumber(redis.call('HGET', N, 'turn') or 0) or 0)
  for group, first in pairs(firsts) do
    local at = tonumber(first)
    if not at then
      redis.call('ZREM', ring, group)
    else
      if at <= LAST then
        local turn = turns and turns[group == '' and backlog or backlog .. '/' .. group]
        local since = not turn and tonumber(redis.call('ZSCORE', ring, group))
        at = turn or not (since and since <= bound) and at
      end
      if at then redis.call('ZADD', ring, integer(at), group) end
    end
  end
  local waiting, first
  for _ = 1, 3 do
    waiting = redis.call('ZRANGE', ring, 0, 1, 'WITHSCORES')
    if #waiting == 0 or #waiting == 2 and waiting[1] == '' then
      redis.call('DEL', ring)
      redis.call('ZREM', heads, backlog .. '/')
      return
    end
    first = firsts[waiting[1]]
    if first == nil then
      local of_group = waiting[1] == '' and backlog or backlog .. '/' .. waiting[1]
      first = redis.call('ZRANGE', backlog_key(of_group), 0, 0, 'WITHSCORES')[2]
    end
    if first and (tonumber(first) <= LAST or first == waiting[2]) then break end
    -- An earlier version, which keeps no turns, has taken what was due.
    if first then redis.call('ZADD', ring, first, waiting[1]) else redis.call('ZREM', ring, waiting[1]) end
  end
  redis.call('ZADD', heads, first or waiting[2], backlog .. '/')
end

-- Updates the entries of backlogs whose first task may have changed.
local function write_heads()
  local with_groups = {}
  for backlog in pairs(dirty) do
    local first = redis.call('ZRANGE', backlog_key(backlog), 0, 0, 'WITHSCORES')[2] or false
    local slash = string.find(backlog, '/', 1, true)
    local of, group = backlog, ''
    if slash then
      of, group = string.sub(backlog, 1, slash - 1), string.sub(backlog, slash + 1)
    elseif first then
      redis.call('ZADD', heads_of(backlog), first, backlog)
    else
      redis.call('ZREM', heads_of(backlog), backlog)
    end
    if slash or not string.find(backlog, '!', 1, true) and redis.call('EXISTS', TAG .. ':ring:' .. backlog) == 1 then
      with_groups[of] = with_groups[of] or {}
      with_groups[of][group] = first
    end
  end
  for backlog, firsts in pairs(with_groups) do write_turns(backlog, firsts) end
end

local function write()
  for set, list in pairs(removed) do redis.call('ZREM', set, unpack(list)) end
  for set, list in pairs(added) do redis.call('ZADD', set, unpack(list)) end
  write_heads()
  for entry, is_new in pairs(indexed or {}) do
    if is_new then
      redis.call('ZADD', TAG .. ':index', 0, entry)
    elseif redis.call('EXISTS', TAG .. ':index:' .. entry) == 0 then
      redis.call('ZREM', TAG .. ':index', entry)
    end
  end
  for field, by in pairs(counted) do
    if by ~= 0 and redis.call('HINCRBY', N, field, by) == 0 then redis.call('HDEL', N, field) end
  end
  for field, by in pairs(passed) do
    if by ~= 0 then redis.call('HINCRBY', TAG .. ':pass', field, by) end
  end
  if open ~= 0 then redis.call('HINCRBY', N, 'open', open) end
  if #events > 0 then
    redis.call('XADD', TAG .. ':events', 'MAXLEN', '~', 1024, '*',
      'from', FROM, 'events', table.concat(events, '\n'))
  end
end
