-- ARGV: queue, how many keys to read. Reconciles sets with the tasks, a part of them with each call: adds tasks
-- to sets that have lost them, removes entries of tasks that are in another state or do not exist, fails tasks
-- whose record is damaged, and corrects the number of open tasks.
-- Returns how many entries were repaired, and 1 at the end of a pass.
--
-- There is no set of all tasks, so a pass goes through the keys of the server.
local limit = tonumber(ARGV[2])
local careful, repaired = library(), 0
local RUN, PREFIX = TAG .. ':run', TAG .. ':task:'
-- After how long a lease expires of which the end is lost, unless its holder renews it.
local LEASE = 15000

local function ensure(set, score, id)
  if call('ZSCORE', TAG .. set, id) then return end
  careful.add(set, score, id)
  repaired = repaired + 1
end

local function fail(id, why)
  repaired = repaired + 1
  careful.fail_damaged(id, why)
end

-- Ensures that a pending task is where leases and expire.lua find it.
local function check_pending(id, task)
  local by = not task.again and task.options and task.options.by or 0
  if by > 0 then
    if call('ZSCORE', TAG .. ':late:' .. task.type, id) then return ensure(':others:' .. task.type, task.order, id) end
    ensure(':start', by + NOW - WALL, id)
    -- Once it can no longer begin in time, it may have left its backlog.
    if by + NOW - WALL < NOW then return end
  end
  local backlog = careful.backlog_of(task)
  ensure(':ready:' .. backlog, careful.score_of(task), id)
  careful.touch(backlog)
  if careful.is_other(task) then ensure(':others:' .. task.type, task.order, id) end
end

-- Ensures that an ended task is listed, and purged when it has to be.
local function check_ended(id, ended, order)
  local set = ended.letter .. ':' .. ended.type
  if order then ensure(':ended:' .. set, order, id) end
  local ttl = tonumber(ended.ttl) or 0
  if ttl > 0 then return ensure(':kept', ended.at + ttl, id) end
  -- The list is in the order of time, so that of a task before its first entry is gone.
  local first = call('LINDEX', TAG .. ':purge:' .. set, 0)
  if ended.at < (tonumber(string.match(first or '', '^%d+') or nil) or math.huge) then
    call('LPUSH', TAG .. ':purge:' .. set, format('%d', ended.at) .. ' ' .. id)
    call('SADD', TAG .. ':types', ended.type)
    repaired = repaired + 1
  end
end

local function check(id)
  local task, ended, value = careful.read(id), careful.read_end(id), call('HGET', RUN, id)
  if ended then
    if value then
      call('HDEL', RUN, id)
      repaired = repaired + 1
    end
    check_ended(id, ended, task and task.order)
  elseif call('EXISTS', TAG .. ':end:' .. id) == 1 then
    fail(id, 'what is stored of its end cannot be read')
  elseif not task then
    fail(id, 'its record cannot be read')
  elseif value then
    local run = careful.parse_run(value)
    if not run or run.order ~= task.order then return fail(id, 'its lease cannot be read') end
    ensure(':leases:' .. run.type, NOW + LEASE, id)
    local group = task.options and task.options.group or '-'
    if group ~= '-' then ensure(':grouped:' .. run.type, 0, group .. ' ' .. run.node .. ' ' .. id) end
    call('SADD', TAG .. ':types', run.type)
  else
    check_pending(id, task)
  end
  if not (task and task.options) then return end
  careful.each_index(task.options, function(entry)
    ensure(':index:' .. entry, task.order, id)
    if careful.indexed[entry] == nil and not call('ZSCORE', TAG .. ':index', entry) then
      careful.indexed[entry] = true
      repaired = repaired + 1
    end
  end)
end

-- Returns the sets of tasks, each with a function that says whether a task belongs there.
local function all_sets()
  local sets = {}
  local function add(set, belongs) sets[#sets + 1] = { TAG .. set, belongs } end
  local function is_pending(id) return careful.state_of(id) == 'p' end
  for _, task_type in ipairs(call('SMEMBERS', TAG .. ':types')) do
    add(':leases:' .. task_type, function(id)
      local run = careful.parse_run(call('HGET', RUN, id))
      return run and run.type == task_type
    end)
    add(':grouped:' .. task_type, function(entry)
      local node, id = string.match(entry, ' (%S+) (%S+)$')
      local run = careful.parse_run(call('HGET', RUN, id or ''))
      return run and run.type == task_type and run.node == node
    end)
    local function is_pending_of_type(id)
      local letter, its = careful.state_of(id)
      return letter == 'p' and its == task_type
    end
    add(':others:' .. task_type, is_pending_of_type)
    add(':late:' .. task_type, is_pending_of_type)
    for _, letter in ipairs({ 'c', 'f', 'x' }) do
      add(':ended:' .. letter .. ':' .. task_type, function(id)
        local ended = careful.read_end(id)
        return ended and ended.letter == letter and ended.type == task_type
      end)
    end
  end
  add(':start', is_pending)
  add(':kept', function(id) return careful.read_end(id) end)
  local function belongs_to(backlog)
    return function(id)
      local task = careful.state_of(id) == 'p' and careful.read(id)
      return task and careful.backlog_of(task) == backlog
    end
  end
  for _, priority in ipairs({ '', '+', '~' }) do
    for _, backlog in ipairs(call('ZRANGE', TAG .. ':heads' .. priority, 0, -1)) do
      if sub(backlog, -1) ~= '/' then
        add(':ready:' .. backlog, belongs_to(backlog))
      else
        for _, group in ipairs(call('ZRANGE', TAG .. ':ring:' .. sub(backlog, 1, -2), 0, limit)) do
          if group ~= '' then add(':ready:' .. backlog .. group, belongs_to(backlog .. group)) end
        end
      end
    end
  end
  return sets
end

-- Removes the entries that do not belong there from a part of a set. Returns where the next part begins, or
-- nothing at the end, and how many entries it has read.
local function sweep(set, belongs, from, most)
  local entries = call('ZRANGE', set, from, from + most - 1)
  for _, id in ipairs(entries) do
    if not belongs(id) then
      careful.remove(sub(set, #TAG + 1), id)
      repaired = repaired + 1
      local backlog = string.match(set, ':ready:(.*)$')
      if backlog then careful.touch(backlog) end
    end
  end
  return #entries == most and from + most or nil, #entries
end

-- Returns where the last call has stopped.
local function position(field)
  local which, from = string.match(call('HGET', SHARD, field) or '', '^(%d+) (%d+)$')
  return tonumber(which) or 1, tonumber(from) or 0
end

-- Sweeps as many of these sets as have so many entries.
local function sweep_some(field, set_at)
  local which, from = position(field)
  local left = limit
  while left > 0 do
    local set, belongs, entry = set_at(which)
    if not set then
      which, from = 1, 0
      break
    end
    local till, entries = sweep(set, belongs, from, limit)
    if entry then careful.indexed[entry] = careful.indexed[entry] or false end
    left = left - 1 - entries
    from = till or 0
    if not till then which = which + 1 end
  end
  call('HSET', SHARD, field, which .. ' ' .. format('%d', from))
end

-- Removes the fields of tasks that do not exist from a part of a hash.
local function sweep_hash(hash, field)
  local found = call('HSCAN', hash, call('HGET', SHARD, field) or '0', 'COUNT', limit)
  for i = 1, #found[2], 2 do
    local id = found[2][i]
    if call('EXISTS', PREFIX .. id) == 0 then
      call('HDEL', hash, id)
      repaired = repaired + 1
    end
  end
  call('HSET', SHARD, field, found[1])
end

-- Deletes a key that belongs to a task that does not exist: a new task of this id would be taken for it.
local function delete_orphan(name)
  local id = string.match(sub(name, #TAG + 1), '^:end:(.+)$') or string.match(sub(name, #TAG + 1), '^:past:(.+)$')
  if not id or call('EXISTS', PREFIX .. id) == 1 then return end
  call('UNLINK', name)
  repaired = repaired + 1
end

-- Corrects the number of open tasks.
local function count_open()
  local number = call('HLEN', RUN)
  for _, priority in ipairs({ '', '+', '~' }) do
    for _, backlog in ipairs(call('ZRANGE', TAG .. ':heads' .. priority, 0, -1)) do
      if sub(backlog, -1) ~= '/' then
        number = number + call('ZCARD', TAG .. ':ready:' .. backlog)
      else
        for _, group in ipairs(call('ZRANGE', TAG .. ':ring:' .. sub(backlog, 1, -2), 0, -1)) do
          if group ~= '' then number = number + call('ZCARD', TAG .. ':ready:' .. backlog .. group) end
        end
      end
    end
  end
  for _, task_type in ipairs(call('SMEMBERS', TAG .. ':types')) do
    number = number + call('ZCARD', TAG .. ':late:' .. task_type)
  end
  local known = tonumber(call('HGET', SHARD, 'open') or 0)
  if known ~= number then
    call('HSET', SHARD, 'open', number)
    repaired = repaired + 1
  end
end

local found = call('SCAN', call('HGET', SHARD, 'scanned') or '0', 'COUNT', limit)
for _, name in ipairs(found[2]) do
  if sub(name, 1, #PREFIX) == PREFIX then
    check(sub(name, #PREFIX + 1))
  elseif sub(name, 1, #TAG) == TAG then
    delete_orphan(name)
  end
end
call('HSET', SHARD, 'scanned', found[1])
local sets = all_sets()
sweep_some('swept', function(n) if sets[n] then return sets[n][1], sets[n][2] end end)
sweep_some('swept-index', function(n)
  local entry = call('ZRANGE', TAG .. ':index', n - 1, n - 1)[1]
  if entry then
    return TAG .. ':index:' .. entry, function(id) return call('EXISTS', PREFIX .. id) == 1 end, entry
  end
end)
sweep_hash(RUN, 'swept-run')
sweep_hash(TAG .. ':progress', 'swept-progress')
careful.write()
count_open()
return { repaired, found[1] == '0' and 1 or 0 }
