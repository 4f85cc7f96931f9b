-- The beginning of every script. One call changes one shard, and Redis runs it as a whole or not at all.
-- host/queue/redis/layout.md documents the keys and the records.
--
-- All keys have the shard's hash tag, KEYS[1], so they are in one slot of a Redis Cluster. The tasks that
-- a lease touches are only known inside the script, so their keys cannot be declared one by one.
--
-- The key KEYS[1] itself never exists, and KEYS[2] is TAG:shard. While a slot moves from one node of a
-- cluster to another, a script would fail halfway at a key that has moved, or find nothing on the new node
-- and start from scratch there. With two declared keys of which one is missing, Redis refuses the script as
-- a whole (TRYAGAIN) until the slot has moved.
--
-- Each call runs this, so it makes nothing that not every script needs.
local TAG, SHARD = KEYS[1], KEYS[2]
local FROM = ARGV[1] -- the id of the calling queue, which skips its own events
local call, sub, find, format = redis.call, string.sub, string.find, string.format

-- An order is a time with low bits that count within a millisecond, and so is the score of a pending task:
-- its due time with the low bits of its order. The 53 bits of a double suffice until the year 2109.
local STEP = 2048
local clock = call('TIME')
local WALL = clock[1] * 1000 + math.floor(clock[2] / 1000)
-- The queue's time follows the clock of Redis, but never goes back: if the clock is set back, the time
-- stands still until a node queries expired leases, as each does once a second, and `skew` compensates for
-- it (expired.lua). `idle` is the time beyond an hour in which no node queried them, or by which the clock
-- was set forward: ended tasks do not age by it.
local shard = call('HMGET', SHARD, 'looked', 'skew', 'idle', 'order', 'fence', 'leased', 'turn', 'open', 'follow')
for n = 1, 9 do shard[n] = tonumber(shard[n] or 0) or 0 end
local LOOKED, SKEW, IDLE, ORDER = shard[1], shard[2], shard[3], shard[4]
local NOW = math.max(WALL + SKEW, LOOKED)
-- The score of a task that is due is not above this.
local LAST = math.max(NOW * STEP + STEP - 1, ORDER)

-- While somebody follows the changes of this shard, an event has the number of its first change, so that a gap is
-- noticed, and more events are kept (changes.lua). To be called on an event before it is added.
local number_event = shard[9] > NOW and function(words)
  local count = 0
  for i = 9, #words, 2 do
    local _, ids = string.gsub(words[i], ' ', '')
    count = count + ids
  end
  local total = call('HINCRBY', SHARD, 'changes', count)
  words[4] = 131072
  words[#words + 1], words[#words + 2] = '#', format('%d', total - count)
end

-- What follows the order in the record of a task of which no attempt has begun and which has no options.
local FRESH = ' 0000000000000 0000000000 0000 -f\n'
