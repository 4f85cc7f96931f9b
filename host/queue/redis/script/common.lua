-- What every script begins with. One call changes one shard, and Redis runs it whole or not at all.
-- All keys hang off the shard's hash tag, KEYS[1], so they are in one slot of a Redis Cluster; which
-- tasks a lease will touch is known only here, so they cannot be declared one by one.
--
-- KEYS[1] itself is never there, and KEYS[2] is TAG:n. While a slot moves from one node of a cluster to
-- another, a script would fail halfway at a key that has gone, or find nothing at the new node and begin
-- there anew. With two keys declared, one of them missing, Redis refuses the script as a whole
-- (TRYAGAIN) until the slot has moved.
--
-- TAG:t:ID    hash: one task, the whole truth about it (fields below)
-- TAG:r:LANE  sorted set: tasks that wait in a lane, by due time
-- TAG:r:LANE! the same of its suspects, of which a node runs one at a time
-- TAG:heads   sorted set: lanes in which a task waits (with ! behind it, its suspects), by the score of
--             the first
-- TAG:leases  sorted set: tasks that run, by the end of their lease
-- TAG:ended   sorted set: tasks that ended, by when, less `idle`
-- TAG:all     sorted set: all tasks, by the order of submission
-- TAG:dead:S  sorted set: failed (S = f) and cancelled (S = x) tasks, by the order of submission
-- TAG:n       hash: counters: how many tasks of a type are in a state, how many are open, the last
--             order, number and fence, how far the sweep is (mend.lua), when somebody last looked for
--             lost leases and since when they may be believed (expired.lua), the identity of the store
--             (open.lua), how many bytes submissions may still take (submit.lua), skew and idle (below)
-- TAG:pass    hash: what the sweep has counted so far
-- TAG:events  stream: what changed, bounded
-- TAG:call:Q  string: the number of queue Q's last lease, and what it got; for some minutes
-- TAG:want:Q  hash: what queue Q's node runs (want.lua); for some seconds
--
-- Fields of a task: m what was asked but the payload (JSON), p payload, l lane, o its place in the
-- order of submission, q its number, t submitted at, s state (p r c f x), u due at, leased until or
-- ended at, a attempt, f fence, b begun at, n node that leased it last, k cancel asked, e error, w who
-- ran it (JSON), r result, z endings applied, g the mark of the ending applied last (finish.lua),
-- d the class of the error where it has one, v losses that were not charged.

local TAG = KEYS[1]
local N = TAG .. ':n'
local FROM = ARGV[1] -- the queue that asks; it skips its own events

-- Scores are due times with the low bits of the task's number, so that tasks due together come in
-- the order of submission. 53 bits of a double last until the year 2109.
local STEP = 2048
local clock = redis.call('TIME')
local WALL = clock[1] * 1000 + math.floor(clock[2] / 1000)
-- The queue's time goes by Redis's clock, but never back: when that is set back, the time stands still
-- until somebody looks for lost leases, as all do once a second, and `skew` makes up for it
-- (expired.lua). `idle` is time in which no node looked, beyond an hour at once, or the clock was set
-- forward: nothing that has ended gets older by it.
local time = redis.call('HMGET', N, 'looked', 'skew', 'idle')
local LOOKED = tonumber(time[1] or 0) or 0
local SKEW, IDLE = tonumber(time[2] or 0) or 0, tonumber(time[3] or 0) or 0
local NOW = math.max(WALL + SKEW, LOOKED)

local function key(id) return TAG .. ':t:' .. id end
local function lane_key(lane) return TAG .. ':r:' .. lane end
local function type_of(lane) return string.match(lane, '^[^@!]+') end
local function whole(number) return string.format('%.0f', number) end

-- Fields of a record; none when the key holds something else than a record.
local function read(id, ...)
  local there = redis.pcall('HMGET', key(id), ...)
  return there.err and {} or there
end

-- Whether all of these are numbers, as they are in every sound record.
local function numbers(...)
  for n = 1, select('#', ...) do
    if not tonumber((select(n, ...))) then return false end
  end
  return true
end

-- The lane as a record has it; nothing where it cannot be one.
local function sound(lane) return lane and type_of(lane) and lane end

-- What is gathered here is written in as few calls as there are sets: a call costs more than an
-- element.
local counted, open, events = {}, 0, {}
local added, removed = {}, {}
-- What changes of the tasks that the sweep has counted, and the order up to which it has.
local passed, pass = {}, nil

-- Lanes whose first task may be another now.
local touched = {}

-- From so many losses on a task is a suspect; as SUSPECT_AFTER of task::transition.
local SUSPECT_AFTER = 2

-- Where a task of that lane waits that was lost so often.
local function line_of(lane, losses)
  return (tonumber(losses) or 0) >= SUSPECT_AFTER and lane .. '!' or lane
end

local function add(set, score, id)
  local list = added[set]
  if not list then list = {}; added[set] = list end
  list[#list + 1] = whole(score); list[#list + 1] = id
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

local function tell(id, lane, state)
  events[#events + 1] = state .. ' ' .. id .. ' ' .. type_of(lane)
end

-- A task that goes from one state to another; nil stands for outside. `order` is its place in the order
-- of submission.
local function move(id, lane, from, to, order)
  local task_type = type_of(lane)
  if from then count(from, task_type, -1, order) end
  if to then count(to, task_type, 1, order); tell(id, lane, to) end
end

local function wait(id, line, due, number)
  add(lane_key(line), due * STEP + number % STEP, id)
  touched[line] = true
end

local function unwait(id, line)
  remove(lane_key(line), id)
  touched[line] = true
end

-- What the node of the asking queue can take, read from ARGV[i] on: the number under which it was told
-- here (want.lua), the one type that is asked for (or nothing), the bytes and pool slots that are free,
-- 1 if a suspect may be among it, how many targets, these as they end the names of lanes, and types with
-- how many more of each. Answers a function from a lane to what is wanted of it, and the room; nothing
-- when it is not known here any more.
local function wants(i)
  local told = TAG .. ':want:' .. FROM
  if redis.call('HGET', told, '') ~= ARGV[i] then return nil end
  local only, suspects = ARGV[i + 1], ARGV[i + 4] == '1'
  local room = { bytes = tonumber(ARGV[i + 2]), slots = tonumber(ARGV[i + 3]) }
  local targets, left, types = {}, {}, {}
  local last = i + 5 + tonumber(ARGV[i + 5])
  for t = i + 6, last do targets[ARGV[t]] = true end
  for t = last + 1, #ARGV, 2 do left[ARGV[t]] = tonumber(ARGV[t + 1]) end

  local function of_type(task_type)
    local said = (only == '' or only == task_type) and redis.call('HGET', told, task_type)
    if not said then return false end
    local most, cluster, bytes, slots = string.match(said, '^(%S+) (%S+) (%S+) (%S+)$')
    local wanted = { left = left[task_type] or tonumber(most), bytes = tonumber(bytes), slots = tonumber(slots) }
    cluster = tonumber(cluster)
    if cluster >= 0 then
      local running = tonumber(redis.call('HGET', N, 'r ' .. task_type) or 0)
      wanted.left = math.min(wanted.left, math.max(0, cluster - running))
    end
    return wanted
  end

  return function(line)
    local lane = string.gsub(line, '!$', '')
    local suspect = lane ~= line
    local task_type = type_of(lane)
    if suspect and not suspects or not targets[string.sub(lane, #task_type + 1)] then return nil end
    if types[task_type] == nil then types[task_type] = of_type(task_type) end
    return types[task_type] or nil, suspect
  end, room
end

local function fits(wanted, room)
  return wanted.bytes <= room.bytes and wanted.slots <= room.slots
end

-- What the end of a task changes in the sets.
local function bury(id, state, order)
  add(TAG .. ':ended', NOW - IDLE, id)
  if state ~= 'c' then add(TAG .. ':dead:' .. state, order, id) end
end

-- The lane that was asked for.
local function lane_of_head(head)
  local is_json, asked = pcall(cjson.decode, head)
  return is_json and type(asked) == 'table' and type(asked.lane) == 'string' and sound(asked.lane)
end

-- Ends a task whose record is damaged: it has failed, by the class corrupt, whatever it was about to do.
-- What a record cannot do without is made up where it is missing, so that the task can be looked at and
-- forgotten; what is there of payload and head stays as it is. `why` says what is wrong. Answers its lane.
-- A counter that cannot be told from the record is left to the sweep.
local function condemn(id, why)
  local task = key(id)
  local there = redis.pcall('HMGET', task, 's', 'l', 'm', 'o', 'q', 't', 'a', 'z')
  if there.err then
    redis.call('UNLINK', task)
    there = {}
  end
  local state, known = there[1], sound(there[2]) or lane_of_head(there[3] or '')
  local lane = known or 'unknown'
  local order = tonumber(there[4]) or tonumber(redis.call('ZSCORE', TAG .. ':all', id)) or NOW * STEP
  local function else_(text, other) return whole(tonumber(text) or other) end
  redis.call('HSET', task, 's', 'f', 'l', lane, 'o', whole(order), 'u', whole(NOW), 'q', else_(there[5], 0),
    't', else_(there[6], NOW), 'a', else_(there[7], 0), 'z', whole((tonumber(there[8]) or 0) + 1),
    'e', 'the record of this task in Redis is damaged: ' .. why, 'd', 'corrupt')
  redis.call('HDEL', task, 'k')
  remove(TAG .. ':leases', id)
  unwait(id, lane)
  unwait(id, lane .. '!')
  add(TAG .. ':all', order, id)
  bury(id, 'f', order)
  if known and (state == 'p' or state == 'r') then count(state, type_of(lane), -1, order) end
  count('f', type_of(lane), 1, order)
  tell(id, lane, 'd')
  return lane
end

local function write()
  for set, list in pairs(removed) do redis.call('ZREM', set, unpack(list)) end
  for set, list in pairs(added) do redis.call('ZADD', set, unpack(list)) end
  for line in pairs(touched) do
    local head = redis.call('ZRANGE', lane_key(line), 0, 0, 'WITHSCORES')
    if head[1] then redis.call('ZADD', TAG .. ':heads', head[2], line)
    else redis.call('ZREM', TAG .. ':heads', line) end
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
