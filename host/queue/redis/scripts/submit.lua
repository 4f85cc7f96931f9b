-- ARGV: queue, how many tasks may be open, the percentage of maxmemory that submissions leave free, 1 to
-- write in any case (so that replicas have something to confirm), then for each task the id, route, m, p,
-- and what it asks for, as words, or nothing; after words i follows. The words are: how long after its
-- submission it is due, or when (0: neither), up to when its unique key is reserved (0: it needs none), the
-- time by which its first attempt has to begin (0: none), then those of field y behind that.
-- Returns a letter for each task: n new, e existing, c conflict, f full, m no memory left for it, v its
-- unique key is not reserved any more (key_holders.lua).
--
-- Only this script is refused by Redis itself when its memory is full: all others make room or are needed
-- for that.
local known = redis.call('HMGET', N, 'open', 'number', 'order', 'room', 'shards')
local open_tasks, number, order = tonumber(known[1] or 0), tonumber(known[2] or 0), tonumber(known[3] or 0)
local limit, reserve = tonumber(ARGV[2]), tonumber(ARGV[3])
local answers, created = {}, 0
-- The order follows the time, so that shards can be listed together, with steps within a millisecond. It
-- does not stay far ahead of a clock that was set back.
local base = NOW * STEP
if order < base or order > base + 10 * STEP then order = base - 1 end

-- The bytes that submissions to this shard may take until the memory is checked again: its share of the
-- room at the last check. A check takes as long as a task, so its result is used for a tenth of a second.
local checked, left = string.match(known[4] or '', '^(%d+) (%d+)$')
checked, left = tonumber(checked or 0), tonumber(left or 0)
local room -- the room of all shards, after a check

local function check_memory()
  checked, room = NOW, 2 ^ 52
  local info = redis.pcall('INFO', 'memory')
  if type(info) == 'string' then
    local function number_of(name) return tonumber(string.match(info, '\n' .. name .. ':(%d+)') or 0) end
    local max = number_of('maxmemory')
    if max > 0 then
      local used = number_of('used_memory') - number_of('mem_not_counted_for_evict')
      room = math.max(0, math.floor(max * (100 - reserve) / 100) - used)
    end
  end
  -- Without the right to INFO only the limit that Redis itself enforces is left.
  left = math.floor(room / tonumber(known[5] or 1))
end

-- The bytes of a record and its entries in the sets, without the given values.
local RECORD = 512

local function has_room(bytes)
  if not room and left < bytes then check_memory() end
  if (room or left) < bytes then return false end
  left = math.max(0, left - bytes)
  if room then room = room - bytes end
  return true
end

local now = integer(NOW)
-- Clients give times by the clock of Redis, and what is due goes by the queue's.
local AHEAD = NOW - WALL
-- No task is due later, so that its score is exact.
local FAR = NOW + 2 ^ 41

if NOW - checked > 100 or NOW < checked then check_memory() end
local i = 5
while i < #ARGV do
  local id, route, m, p, words, options = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ''
  i = i + 5
  local after, at, till, by, rest, y
  if words ~= '' then
    options, i = ARGV[i], i + 1
    after, at, till, by, rest = string.match(words, '^(%d+) (%d+) (%d+) (%d+) (.+)$')
    after, at, till, by = tonumber(after), tonumber(at), tonumber(till), tonumber(by)
  end
  local stored = compare(id, m, p, options)
  if stored then
    answers[#answers + 1] = stored
  elseif rest and till > 0 and (NOW > till or till <= tonumber(redis.call('GET', TAG .. ':void:' .. id) or 0)) then
    answers[#answers + 1] = 'v'
  elseif open_tasks + created >= limit then
    answers[#answers + 1] = 'f'
  elseif not has_room(RECORD + #id + #m + #p + 4 * #words + #options) then
    answers[#answers + 1] = 'm'
  else
    created, number, order = created + 1, number + 1, order + 1
    local due, due_at, backlog, is_late = NOW, now, route, false
    if rest then
      due = math.min(FAR, at > 0 and math.max(NOW, at + AHEAD) or NOW + after)
      if by > 0 then
        by = math.max(1, math.min(FAR, by + AHEAD))
        is_late = by < NOW
        add(TAG .. (is_late and ':late' or ':start'), by, id)
      end
      y = integer(by) .. ' ' .. rest
      due_at, backlog = integer(due), backlog_of(route, nil, y)
      each_index(y, function(entry)
        add(TAG .. ':index:' .. entry, order, id)
        indexed[entry] = true
      end)
      redis.call('HSET', key(id), 'i', options, 'y', y)
    end
    redis.call('HSET', key(id), 'm', m, 'p', p, 'l', route, 'o', integer(order), 'q', integer(number),
      't', now, 's', 'p', 'u', due_at, 'a', 0, 'z', 0)
    if not is_late then enqueue(id, backlog, due, number) end
    add(TAG .. ':all', order, id)
    record_transition(id, route, nil, 'p', order)
    answers[#answers + 1] = 'n'
  end
end
if created > 0 or ARGV[4] == '1' then
  redis.call('HSET', N, 'number', integer(number), 'order', integer(order), 'room', integer(checked) .. ' ' .. integer(left))
  write()
end
return table.concat(answers)
