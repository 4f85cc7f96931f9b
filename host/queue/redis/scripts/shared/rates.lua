-- Rates of task types and of their groups, as `hostel_task::Rate`: what was taken of a bucket and has not come
-- back, in units of which each rate gives a whole number a millisecond. TAG:rate:SCOPE is gone once it is full.

-- One task, as PERMIT of hostel_task.
local PERMIT = 86400000

-- Reads the bucket of a rate that gives so many units a millisecond. Returns how much is missing from it now,
-- and the time that this is of: a clock that went back gives nothing back.
local function read_rate(scope, per_ms)
  local units, at = string.match(call('GET', TAG .. ':rate:' .. scope) or '', '^(%d+) (%d+)$')
  units, at = tonumber(units) or 0, tonumber(at) or 0
  local elapsed = math.max(0, NOW - at)
  if elapsed > units / per_ms then return 0, math.max(at, NOW) end
  return units - elapsed * per_ms, math.max(at, NOW)
end

local function write_rate(scope, per_ms, missing, at)
  if missing <= 0 then
    call('DEL', TAG .. ':rate:' .. scope)
  else
    local full = at - NOW + math.ceil(missing / per_ms)
    call('SET', TAG .. ':rate:' .. scope, format('%d', missing) .. ' ' .. format('%d', at), 'PX', format('%d', full + 1000))
  end
end

-- Takes up to so many permits. Returns how many, and how long until the next one after them is there.
local function take_permits(scope, per_ms, capacity, want)
  local missing, at = read_rate(scope, per_ms)
  local taken = math.min(want, math.max(0, math.floor((capacity - missing) / PERMIT)))
  missing = missing + taken * PERMIT
  if taken > 0 then write_rate(scope, per_ms, missing, at) end
  return taken, at - NOW + math.ceil(math.max(0, missing + PERMIT - capacity) / per_ms)
end

-- Returns permits that were taken and not used.
local function return_permits(scope, per_ms, count)
  local missing, at = read_rate(scope, per_ms)
  write_rate(scope, per_ms, missing - count * PERMIT, at)
end
