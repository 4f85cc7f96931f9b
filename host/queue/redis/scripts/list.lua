-- ARGV: queue, state or nothing, type or nothing, group or nothing, tag or nothing, order and id of the last
-- task of the previous page (or nothing), how many tasks and how many bytes to return.
-- Returns where it stopped (order and id, or nothing at the end), and for each task its id, its order and what
-- is stored of it (shared/reading.lua), newest first.
--
-- There is no set of all tasks: those of each state are merged.
local state, of_type, group, tag = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local after, after_id, size, max_bytes = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
local careful = library()
-- Sets by the order of submission.
local sets = {}
-- Backlogs, of which those tasks count whose score is their order. TAG:others has the rest.
local backlogs = {}
local found, floor = {}, -1

local function is_state(letter) return state == '' or state == letter end

if group ~= '' or tag ~= '' then
  -- The set that is likely to be the smallest; a task in it is compared with the rest of the filter.
  sets[1] = TAG .. ':index:' .. (tag ~= '' and 't:' .. tag or 'g:' .. group)
else
  for _, task_type in ipairs(of_type ~= '' and { of_type } or call('SMEMBERS', TAG .. ':types')) do
    for _, letter in ipairs({ 'c', 'f', 'x' }) do
      if is_state(letter) then sets[#sets + 1] = TAG .. ':ended:' .. letter .. ':' .. task_type end
    end
    if is_state('p') then sets[#sets + 1] = TAG .. ':others:' .. task_type end
  end
  for _, heads in ipairs(is_state('p') and { '', '+', '~' } or {}) do
    for _, backlog in ipairs(call('ZRANGE', TAG .. ':heads' .. heads, 0, -1)) do
      if not find(backlog, '[/!]') and (of_type == '' or careful.type_of(string.match(backlog, '^[^+~]+')) == of_type) then
        backlogs[#backlogs + 1] = TAG .. ':ready:' .. backlog
      end
    end
  end
end

local function is_after(order, id) return not after or order < after or order == after and id < after_id end

local each = math.max(16, math.min(size, math.floor(4096 / math.max(1, #sets + #backlogs))))

-- Adds the newest tasks of a set. Those of other sets that are older than its last one wait if it has more.
local function read_set(set, from, is_backlog)
  local list = call('ZRANGE', set, from, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, each, 'WITHSCORES')
  for i = 1, #list, 2 do
    local order = tonumber(list[i + 1])
    if is_after(order, list[i]) then
      found[#found + 1] = { id = list[i], order = order, text = list[i + 1], is_backlog = is_backlog }
    end
  end
  if #list == 2 * each then floor = math.max(floor, tonumber(list[#list])) end
end

for _, set in ipairs(sets) do read_set(set, after or '+inf') end
-- What is due later has another place in the order of submission.
for _, backlog in ipairs(backlogs) do read_set(backlog, math.min(after or LAST, LAST), true) end
if group == '' and tag == '' and is_state('r') then
  local runs = call('HGETALL', TAG .. ':run')
  for i = 1, #runs, 2 do
    local run = careful.parse_run(runs[i + 1])
    local order = run and tonumber(run.order)
    if run and (of_type == '' or run.type == of_type) and is_after(order, runs[i]) then
      found[#found + 1] = { id = runs[i], order = order, text = run.order }
    end
  end
end
table.sort(found, function(a, b)
  if a.order ~= b.order then return a.order > b.order end
  return a.id > b.id
end)

-- Whether a task in TAG:index passes the filter.
local function passes(id)
  local letter, task_type = careful.state_of(id)
  if not letter or not is_state(letter) or of_type ~= '' and task_type ~= of_type then return false end
  local task = careful.parse(careful.read_head(id))
  local options = task and task.options
  return options and (group == '' or options.group == group)
    and (tag == '' or find(options.tags .. ' ', ' ' .. tag .. ' ', 1, true) ~= nil)
end

local rows, bytes, stopped = {}, 0, floor >= 0
local last
for _, it in ipairs(found) do
  if it.order < floor then break end
  if #rows == size or bytes >= max_bytes then
    stopped = true
    break
  end
  last = it
  local is_listed = true
  if it.is_backlog then
    is_listed = redis.pcall('GETRANGE', TAG .. ':task:' .. it.id, 0, 15) == it.text
  elseif group ~= '' or tag ~= '' then
    is_listed = passes(it.id)
  end
  local parts = is_listed and describe(careful, it.id, 0, 0)
  if parts and (parts[2] > 0 or call('EXISTS', TAG .. ':task:' .. it.id) == 1) then
    rows[#rows + 1] = { it.id, it.text, parts }
    bytes = bytes + #parts[1] + #parts[5] + #parts[7] + #parts[8]
  end
end
if not stopped then return { '', '', rows } end
if not last then return { format('%d', floor), '', rows } end
return { last.text, last.id, rows }
