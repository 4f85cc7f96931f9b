-- ARGV: queue, how many tasks. Changes a shard of format 1 into one of format 2, some tasks with each call.
-- Returns how many are left.
--
-- Nodes that know format 1 alone fail from the first call on, and the attempts that they run are lost when
-- their leases expire. In format 1 a task is a hash TAG:t:ID: m head (JSON), p payload, l route, o order, t
-- time of submission, s state, u due time, end of the lease or time of the end, a attempt, b start of the
-- attempt, n node, k cancellation requested, e error, w what ran it (JSON), r result, d class of the error, v
-- losses that were not charged. TAG:all has all tasks by their order, TAG:ended those that have ended.
local OLD, ALL, ENDED = TAG .. ':n', TAG .. ':all', TAG .. ':ended'
if call('TYPE', OLD).ok == 'hash' then
  for _, field in ipairs({ 'shards', 'store', 'looked', 'trusted', 'skew', 'idle', 'order' }) do
    local value = call('HGET', OLD, field)
    if value then call('HSET', SHARD, field, value) end
  end
  call('HSET', SHARD, 'format', '2', 'open', 0)
  call('UNLINK', OLD, TAG .. ':heads', TAG .. ':leases', TAG .. ':dead:f', TAG .. ':dead:x', TAG .. ':pass', TAG .. ':events')
  call('SET', OLD, 'These tasks have format 2. Use a newer version of Hostel.')
end
local careful, number = library(), 0

local function json(fields)
  local is_json, text = pcall(cjson.encode, fields)
  return (is_json and text or '{}') .. '\n'
end

local function migrate(id)
  local old = TAG .. ':t:' .. id
  local there = redis.pcall('HMGET', old, 's', 'l', 'o', 't', 'u', 'a', 'b', 'n', 'k', 'e', 'w', 'r', 'd', 'v', 'm', 'p')
  if there.err then there = {} end
  call('UNLINK', old)
  local state, route, order = there[1], careful.valid_route(there[2]), there[3]
  if not state then return end
  number = number + 1
  if not (careful.number_of(order) and #order == 16) then order = format('%d', NOW * STEP + number) end
  local at, attempt = careful.number_of(there[5]), careful.number_of(there[6])
  local begun, losses = careful.number_of(there[7]), careful.number_of(there[14]) or 0
  local is_sound = route and at and attempt and there[15] and there[16] and find('prcfx', state, 1, true)
    and (state ~= 'r' or begun and there[8])
  route, attempt = route or 'unknown', attempt or 0
  call('UNLINK', TAG .. ':r:' .. route, TAG .. ':r:' .. route .. '!')
  local task = {
    order = order, due = 0, attempts = attempt, losses = losses, priority = '-', route = route,
    type = careful.type_of(route), again = attempt > 0 or losses > 0 or there[10] or begun,
  }
  -- The fencing token of an attempt says when it began.
  local fence = begun and begun * STEP + number % STEP
  local is_json, by = pcall(cjson.decode, there[11] or '')
  local left = { by = is_json and type(by) == 'table' and by or nil, error = there[10] or nil }
  if state ~= 'p' and attempt > 0 and begun then task.attempts = attempt - 1 end
  if state == 'p' then task.due = (at or 0) > math.floor(order / STEP) and at or 0 end
  call('SET', TAG .. ':task:' .. id, order .. FRESH .. '\n' .. (there[15] or '{}') .. '\n' .. (there[16] or ''))
  if not is_sound and (state == 'p' or state == 'r') then
    careful.opened()
    careful.fail_damaged(id, 'it lacks a field')
    return
  end
  careful.store(id, task)
  if state == 'p' or state == 'r' then
    careful.opened()
    if left.by or left.error then call('SET', TAG .. ':past:' .. id, '\n' .. json(left)) end
  end
  if state == 'p' then
    careful.place(id, task)
  elseif state == 'r' then
    local value = order .. ' ' .. format('%d', fence) .. ' ' .. there[8] .. ' ' .. route .. ' -'
    call('HSET', TAG .. ':run', id, there[9] and value .. ' k' or value)
    careful.add(':leases:' .. task.type, at, id)
  else
    left.class, left.fence = there[13] or nil, begun and format('%d', fence) or nil
    left.uncounted = attempt == 0 and begun and true or nil
    at = at or NOW
    call('SET', TAG .. ':end:' .. id, state .. ' ' .. format('%d', at) .. ' ' .. format('%d', IDLE) .. ' - ' .. task.type
      .. '\n' .. json(left) .. (there[12] or ''))
    local set = state .. ':' .. task.type
    careful.add(':ended:' .. set, order, id)
    call('RPUSH', TAG .. ':purge:' .. set, format('%d', at - IDLE) .. ' ' .. id)
  end
  call('SADD', TAG .. ':types', task.type)
end

-- Ended tasks come first, by the time of their end, since their lists are in that order.
local limit = tonumber(ARGV[2])
local ids = call('ZRANGE', ENDED, 0, limit - 1)
local from = #ids > 0 and ENDED or ALL
if #ids == 0 then ids = call('ZRANGE', ALL, 0, limit - 1) end
for _, id in ipairs(ids) do
  migrate(id)
  call('ZREM', ENDED, id)
  call('ZREM', ALL, id)
end
careful.write()
return call('ZCARD', ALL)
