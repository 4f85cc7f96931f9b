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
-- TAG:leases  sorted set: tasks that run, by the end of their lease
-- TAG:ended   sorted set: tasks that ended, by when
-- TAG:all     sorted set: all tasks, by the order of submission
-- TAG:dead:S  sorted set: failed (S = f) and cancelled (S = x) tasks, by the order of submission
-- TAG:n       hash: counters: how many tasks of a type are in a state, how many are open, the last
--             order, number and fence, how far the sweep is (mend.lua), when somebody last looked for
--             lost leases and since when they may be believed (expired.lua)
-- TAG:pass    hash: what the sweep has counted so far
-- TAG:events  stream: what changed, bounded
-- TAG:call:Q  string: the number of queue Q's last lease, and what it got; for some minutes
--
-- Fields of a task: m what was asked but the payload (JSON), p payload, l lane, o its place in the
-- order of submission, q its number, t submitted at, s state (p r c f x), u due at, leased until or
-- ended at, a attempt, f fence, b begun at, n node that leased it last, k cancel asked, e error, w who
-- ran it (JSON), r result, z endings applied.

local TAG = KEYS[1]
local N = TAG .. ':n'
local FROM = ARGV[1] -- the queue that asks; it skips its own events

-- Scores are due times with the low bits of the task's number, so that tasks due together come in
-- the order of submission. 53 bits of a double last until the year 2109.
local STEP = 2048
local clock = redis.call('TIME')
local NOW = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function key(id) return TAG .. ':t:' .. id end
local function lane_key(lane) return TAG .. ':r:' .. lane end
local function type_of(lane) return string.match(lane, '^[^@]+') end
local function whole(number) return string.format('%.0f', number) end

-- What is gathered here is written in as few calls as there are sets: a call costs more than an
-- element.
local counted, open, events = {}, 0, {}
local added, removed = {}, {}
-- What changes of the tasks that the sweep has counted, and the order up to which it has.
local passed, pass = {}, nil

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

local function wait(id, lane, due, number)
  add(lane_key(lane), due * STEP + number % STEP, id)
end

-- What the end of a task changes in the sets.
local function bury(id, state, order)
  add(TAG .. ':ended', NOW, id)
  if state ~= 'c' then add(TAG .. ':dead:' .. state, order, id) end
end

local function write()
  for set, list in pairs(removed) do redis.call('ZREM', set, unpack(list)) end
  for set, list in pairs(added) do redis.call('ZADD', set, unpack(list)) end
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
