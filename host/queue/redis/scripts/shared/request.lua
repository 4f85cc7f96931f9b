-- A lease request, which begins at ARGV[REQUEST]: the number under which the task types were registered
-- (register_types.lua), the only requested type (or nothing), the available bytes and pool slots, 1 if a
-- suspect is allowed, the number of targets, the targets as routes end with them, and types with their
-- remaining numbers. Limits on all nodes together are in these numbers (permits.rs).
local available = { bytes = tonumber(ARGV[REQUEST + 2]), slots = tonumber(ARGV[REQUEST + 3]) }
local limits = {} -- by type; false if it is not requested

-- Reads the limits of these task types. Returns false if the types are not registered any more.
local function read_limits(types)
  local values = call('HMGET', TAG .. ':want:' .. FROM, '', unpack(types))
  if values[1] ~= ARGV[REQUEST] then return false end
  local only, targets = ARGV[REQUEST + 1], tonumber(ARGV[REQUEST + 5])
  for n, task_type in ipairs(types) do
    local max, bytes, slots = string.match(values[n + 1] or '', '^(%S+) (%S+) (%S+)$')
    if max and (only == '' or only == task_type) then
      local left = tonumber(max)
      for i = REQUEST + 6 + targets, #ARGV, 2 do
        if ARGV[i] == task_type then left = tonumber(ARGV[i + 1]) end
      end
      limits[task_type] = { type = task_type, left = left, bytes = tonumber(bytes), slots = tonumber(slots) }
    else
      limits[task_type] = false
    end
  end
  return true
end

-- Returns the task types of backlogs, those whose limits are not read yet. `step` is 2 if their scores are
-- between them.
local function unread_types(backlogs, step)
  local types, seen = {}, {}
  for n = 1, #backlogs, step do
    local task_type = string.match(backlogs[n], '^[^@!+~/]+')
    if limits[task_type] == nil and not seen[task_type] then
      seen[task_type] = true
      types[#types + 1] = task_type
    end
  end
  return types
end

-- Returns the requested type of a backlog, its route, and whether it is one of suspects; nothing if the
-- request is not for it.
local function requested_of(backlog)
  local task_type, target, mark = string.match(backlog, '^([^@!+~/]+)([^!+~/]*)(!?)')
  local requested = limits[task_type]
  if not requested or mark == '!' and ARGV[REQUEST + 4] ~= '1' then return nil end
  for i = REQUEST + 6, REQUEST + 5 + tonumber(ARGV[REQUEST + 5]) do
    if ARGV[i] == target then return requested, task_type .. target, mark == '!' end
  end
end

local function fits(requested)
  return requested.left > 0 and requested.bytes <= available.bytes and requested.slots <= available.slots
end
