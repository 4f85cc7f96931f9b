-- The bytes that submissions to this shard may take until the memory is checked again: its share of the
-- room at the last check. A check takes as long as a task, so its result is used for a tenth of a second.
local known = call('HMGET', SHARD, 'checked', 'room', 'shards')
local checked, left = tonumber(known[1] or 0) or 0, tonumber(known[2] or 0) or 0
local room -- the room of all shards, after a check

local function check_memory()
  checked, room = NOW, 2 ^ 52
  local info = redis.pcall('INFO', 'memory')
  if type(info) == 'string' then
    local function number_of(name) return tonumber(string.match(info, '\n' .. name .. ':(%d+)') or 0) end
    local max = number_of('maxmemory')
    if max > 0 then
      local used = number_of('used_memory') - number_of('mem_not_counted_for_evict')
      room = math.max(0, math.floor(max * (100 - tonumber(ARGV[3])) / 100) - used)
    end
  end
  -- Without the right to INFO only the limit that Redis itself enforces is left.
  left = math.floor(room / (tonumber(known[3] or 1) or 1))
end

local function take_room(bytes)
  if not room and left < bytes then check_memory() end
  if (room or left) < bytes then return false end
  left = math.max(0, left - bytes)
  if room then room = room - bytes end
  return true
end

if NOW - checked > 100 or NOW < checked then check_memory() end
