-- ARGV: queue, then for each attempt the id, fencing token, outcome (c completed, p retry, f failed,
-- x cancelled, b released, l lost and not charged, d its record is damaged), time until it is due again, and
-- what the node has encoded of the attempt; for d what is wrong.
-- Returns the time, and for each attempt the state of the task and its type; a capital letter if this queue
-- had applied the outcome before and did not get the answer; d if its record is damaged; nothing if the token
-- is not valid.
local RUN, END = TAG .. ':run', TAG .. ':end:'
local times = ' ' .. format('%d', NOW) .. ' ' .. format('%d', IDLE) .. ' '
local ids, n = {}, 0
for i = 2, #ARGV, 5 do
  n = n + 1
  ids[n] = ARGV[i]
end
local held, parsed, answers = call('HMGET', RUN, unpack(ids)), {}, {}
local careful

-- Parses the value of a running task behind its order. Most tasks of a call have the same few.
local function parse(text)
  local fence, node, route, ttl, tag, cancel = string.match(text, '^ (%d+) (%S+) (%S+) ([-%d]+)([^ ]*)(.*)$')
  local run = { fence = fence, node = node, ttl = ttl, tag = tag, is_cancelled = cancel ~= '', route = route }
  run.why = cancel and string.match(cancel, '^ k (.+)$')
  if fence then
    run.type = string.match(route, '^[^@!+~/]+')
    run.times = times .. ttl .. ' ' .. run.type .. '\n'
    run.place = run.type .. ' ' .. node
  end
  parsed[text] = run
  return run
end

-- The running tasks that end here, by type and node, and what is written of them.
local places, ends, ended = {}, {}, {}

-- Returns where a task of this type and state goes.
local function place_of(run, letter)
  local of = places[run.place]
  if not of then
    of = { type = run.type, node = run.node, leases = {}, states = {}, groups = {} }
    places[run.place] = of
  end
  local state = of.states[letter]
  if not state then
    state = { orders = {}, ids = {}, due = {} }
    of.states[letter] = state
  end
  return of.leases, state
end

-- Frees the place of a task in its group, which may have its turn again.
local function leave_group(id, run)
  local words = call('GETRANGE', TAG .. ':task:' .. id, 50, 305)
  local group = string.match(words, '^%d+ %d+ [-+~] ([^%s/]+) ')
  if not group or group == '-' then return end
  local groups = places[run.place].groups
  groups[#groups + 1] = group .. ' ' .. run.node .. ' ' .. id
  if call('HEXISTS', TAG .. ':parked', run.type) == 0 then return end
  careful = careful or library()
  for _, mark in ipairs({ '', '+', '~' }) do
    local backlog = run.route .. mark
    if call('ZSCORE', TAG .. ':ring:' .. backlog, group) then careful.touch(backlog .. '/' .. group) end
  end
end

-- Whether a task in a state may have come there by an outcome: one whose cancellation was requested ends as
-- cancelled instead of being tried again.
local function may_lead(outcome, letter)
  return outcome == letter or letter == 'x' and (outcome == 'p' or outcome == 'l' or outcome == 'b')
end

-- Answers for a token that holds no task.
local function repeated(id, fence, outcome, data)
  careful = careful or library()
  local task = careful.read(id)
  local stored = redis.pcall('GET', END .. id)
  if task and type(stored) == 'string' then
    local letter, text = string.match(stored, '^([cfx]) [^\n]*\n(.*)$')
    -- The reason of a cancellation was put before the rest.
    local has_why = letter == 'x' and find(text, '{"why":', 1, true) == 1 and sub(text, 1 - #data) == sub(data, 2)
    -- Two outcomes may leave the same, as a cancellation and an empty result do.
    if may_lead(outcome, letter) and (text == data or has_why) then return string.upper(letter), task.type end
  elseif task and (outcome == 'p' or outcome == 'l' or outcome == 'b') then
    local past = call('GET', TAG .. ':past:' .. id) or ''
    local mark, left = string.match(past, '^(%S*)[^\n]*\n[^\n]*\n?%S* ?%S* ?%S* ?([^\n]*)')
    if mark == fence .. outcome .. sub(FROM, -8) and (outcome == 'b' or left .. '\n' == data) then
      return call('HEXISTS', RUN, id) == 1 and 'R' or 'P', task.type
    end
  end
  return '', ''
end

-- Makes a task pending again whose attempt did not end it. Returns false if its record is damaged.
local function again(id, run, fence, outcome, after, data)
  careful = careful or library()
  local task = careful.read(id)
  if not task then return false end
  local due = NOW + math.min(after, 2 ^ 41)
  local number, left = task.attempts + 1, string.match(data, '^[^\n]*')
  local attempt = careful.is_attempt(left) and format('%d', number) .. ' ' .. run.node .. ' ' .. left
  -- A release says nothing new of the task.
  careful.remember(id, fence .. outcome .. sub(FROM, -8), NOW, attempt, outcome ~= 'b' and '' or nil)
  if outcome == 'p' then task.attempts = task.attempts + 1 end
  if outcome == 'l' then task.losses = task.losses + 1 end
  task.due = due
  careful.again(id, task)
  careful.emit(id .. (find(run.tag, '#', 1, true) and run.tag or '#1' .. run.tag), run.type, 'p', run.node)
  return true
end

-- Counts the loss of a task that is cancelled instead of being tried again.
local function lost(id)
  careful = careful or library()
  local task = careful.read(id)
  if not task then return end
  task.losses = task.losses + 1
  careful.store(id, task)
end

local seen = {}
n = 0
for k = 1, #ids do
  local i = 2 + 5 * (k - 1)
  local id, fence, outcome, value = ARGV[i], ARGV[i + 1], ARGV[i + 2], held[k]
  local run = value and (parsed[sub(value, 17)] or parse(sub(value, 17)))
  local letter, task_type
  if not run or run.fence ~= fence or seen[id] then
    letter, task_type = repeated(id, fence, outcome, ARGV[i + 4])
  elseif outcome == 'd' or find(sub(value, 1, 16), '%D') then
    careful = careful or library()
    letter, task_type = 'd', careful.fail_damaged(id, outcome == 'd' and ARGV[i + 4] or 'its place is no number')
  else
    letter, task_type = outcome, run.type
    local is_again = outcome == 'p' or outcome == 'b' or outcome == 'l'
    if is_again and run.is_cancelled then
      -- A task whose cancellation was requested is not retried.
      letter = 'x'
      if outcome == 'l' then lost(id) end
    elseif is_again then
      letter = again(id, run, fence, outcome, tonumber(ARGV[i + 3]), ARGV[i + 4]) and 'p'
    end
    if not letter then
      letter, task_type = 'd', careful.fail_damaged(id, 'it lacks what finishing needs')
    else
      local leases, state = place_of(run, letter)
      leases[#leases + 1] = id
      ended[#ended + 1] = id
      if run.ttl ~= '-' then leave_group(id, run) end
      if letter ~= 'p' then
        local data = ARGV[i + 4]
        if letter == 'x' and run.why then data = '{"why":' .. run.why .. ',' .. sub(data, 2) end
        ends[n + 1], ends[n + 2] = END .. id, letter .. run.times .. data
        n = n + 2
        local m = #state.orders
        state.orders[m + 1], state.orders[m + 2] = sub(value, 1, 16), id
        state.ids[#state.ids + 1] = id .. run.tag
        local ttl = run.ttl ~= '-' and tonumber(run.ttl) or 0
        if ttl > 0 then
          call('ZADD', TAG .. ':kept', format('%d', NOW - IDLE + ttl), id)
        else
          state.due[#state.due + 1] = id
        end
      end
    end
  end
  seen[id] = true
  answers[2 * k - 1], answers[2 * k] = letter, task_type
end

-- What decides the state comes last: if a set cannot be written, the call can be repeated.
local events, e = { TAG .. ':events', 'MAXLEN', '~', 1024, '*', 'from', FROM }, 7
for _, of in pairs(places) do
  local task_type = of.type
  call('ZREM', TAG .. ':leases:' .. task_type, unpack(of.leases))
  if #of.groups > 0 then call('ZREM', TAG .. ':grouped:' .. task_type, unpack(of.groups)) end
  for letter, state in pairs(of.states) do
    local set = letter .. ':' .. task_type
    if #state.orders > 0 then
      call('ZADD', TAG .. ':ended:' .. set, unpack(state.orders))
      events[e + 1], events[e + 2] = letter .. ' ' .. of.node, task_type .. ' ' .. table.concat(state.ids, ' ')
      e = e + 2
    end
    if #state.due > 0 then
      call('RPUSH', TAG .. ':purge:' .. set, format('%d', NOW - IDLE) .. ' ' .. table.concat(state.due, ' '))
    end
  end
end
if n > 0 then call('MSET', unpack(ends)) end
if #ended > 0 then call('HDEL', RUN, unpack(ended)) end
if n > 0 then call('HINCRBY', SHARD, 'open', -n / 2) end
if e > 7 then
  if number_event then number_event(events) end
  call('XADD', unpack(events))
end
if careful then careful.write() end
return { NOW, answers }
