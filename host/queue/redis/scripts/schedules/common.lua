-- The beginning of every script of schedules. All schedules of a queue are in its first shard, so that one
-- script sees all of them; KEYS are as in ../shared/base.lua.
--
-- TAG:schedule:NAME      hash: v version, s what it is (JSON), r its record (JSON)
-- TAG:schedules          sorted set: the names, all with score 0, so that they are in their own order
-- TAG:schedules:due      sorted set: the names, by the time at which a node has to look at them
-- TAG:schedules:last     hash: v the last version; none is used twice, also not by a schedule of the same
--                        name that is created later
local TAG = KEYS[1]
local NAMES, DUE = TAG .. ':schedules', TAG .. ':schedules:due'

local function key(name) return TAG .. ':schedule:' .. name end
local function integer(number) return string.format('%.0f', number) end

-- The wall clock of Redis, which schedules fire by; the queue's own time stands still while it is set back.
local function wall()
  local clock = redis.call('TIME')
  return clock[1] * 1000 + math.floor(clock[2] / 1000)
end

local function new_version() return integer(redis.call('HINCRBY', TAG .. ':schedules:last', 'v', 1)) end

local function set_due(name, next)
  if next == '' then redis.call('ZREM', DUE, name) else redis.call('ZADD', DUE, next, name) end
end
