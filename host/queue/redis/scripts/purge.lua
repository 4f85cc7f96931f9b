-- ARGV: queue, how many, how long completed, failed and cancelled tasks are kept, then for each type with times
-- of its own the type and these. Returns how many tasks were purged.

-- After an hour without a query of expired leases, that query first decides how much of the time counts.
if LOOKED > 0 and NOW - LOOKED > 3600000 then return 0 end
local limit, purged, times = tonumber(ARGV[2]), 0, {}
for i = 6, #ARGV, 4 do times[ARGV[i]] = i + 1 end
local PLACES = { c = 0, f = 1, x = 2 }

-- Returns the time by which a task of this type and state has to have ended to be purged.
local function till_of(letter, task_type)
  return NOW - IDLE - tonumber(ARGV[(times[task_type] or 3) + PLACES[letter]])
end

local careful = library()

-- Purges an ended task.
local function purge(id, ended)
  if careful.purge(id, ended) then purged = purged + 1 end
end

-- Purges tasks from a list, of which each entry has the time of an end and the ids of the tasks that ended
-- then. A task that was requeued since is passed over.
local function purge_list(list, till)
  while purged < limit do
    local entry = call('LPOP', list)
    if not entry then return end
    local at, ids = string.match(entry, '^(%d+) (.*)$')
    if not at or tonumber(at) > till then
      if at then call('LPUSH', list, entry) end
      return
    end
    local left = {}
    for id in string.gmatch(ids, '%S+') do
      if purged < limit then
        local ended = careful.read_end(id)
        if ended and ended.at == tonumber(at) then purge(id, ended) end
      else
        left[#left + 1] = id
      end
    end
    if #left > 0 then call('LPUSH', list, at .. ' ' .. table.concat(left, ' ')) end
  end
end

for _, id in ipairs(call('ZRANGE', TAG .. ':kept', '-inf', format('%d', NOW - IDLE), 'BYSCORE', 'LIMIT', 0, math.ceil(limit / 2))) do
  local ended = careful.read_end(id)
  if ended then purge(id, ended) end
  careful.remove(':kept', id)
end
for _, task_type in ipairs(call('SMEMBERS', TAG .. ':types')) do
  for _, letter in ipairs({ 'c', 'f', 'x' }) do
    purge_list(TAG .. ':purge:' .. letter .. ':' .. task_type, till_of(letter, task_type))
  end
end
careful.write()
return purged
