-- ARGV: queue, how many to return, how many to read, the duration of a lease, and types to leave out.
-- Returns for each expired lease the id, fencing token and type, the record without its payload, and
-- 1 if cancellation was requested.
-- How many changes are kept for those who follow them, which is more than is promised.
local KEPT_CHANGES = 120000
if number_event then trim_events(KEPT_CHANGES) end
local max, scan, ttl, others = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), {}
for i = 5, #ARGV do
  others[ARGV[i]] = true
end
-- Every node queries expired leases once a second. If none could, none could renew a lease either: live
-- nodes then get the time to do so before a lease counts as expired.
local trusted = tonumber(call('HGET', SHARD, 'trusted') or 0)
local HOUR, MINUTE = 3600000, 60000
if WALL + SKEW < LOOKED then
  -- The clock was set back. The time continues from where it was.
  SKEW = LOOKED - WALL
elseif SKEW > 0 and NOW - LOOKED > MINUTE then
  -- No node queried, or the clock was set forward again.
  SKEW = SKEW - math.min(SKEW, NOW - LOOKED)
  NOW = WALL + SKEW
end
if LOOKED > 0 and NOW - LOOKED > HOUR then IDLE = IDLE + NOW - LOOKED - HOUR end
if NOW - LOOKED > 1000 + ttl / 3 then trusted = NOW + math.floor(ttl / 2) end
call('HSET', SHARD, 'looked', format('%d', NOW), 'trusted', format('%d', trusted), 'skew', format('%d', SKEW), 'idle', format('%d', IDLE))
if NOW < trusted then return {} end
local answer, found, careful = {}, 0, nil
for _, task_type in ipairs(call('SMEMBERS', TAG .. ':types')) do
  local set = TAG .. ':leases:' .. task_type
  local left = math.min(max - found, scan)
  local late = not others[task_type] and left > 0
    and call('ZRANGE', set, '-inf', '(' .. format('%d', NOW), 'BYSCORE', 'LIMIT', 0, left) or {}
  for _, id in ipairs(late) do
    careful = careful or library()
    local value = call('HGET', TAG .. ':run', id)
    local run, head = careful.parse_run(value), careful.read_head(id)
    if not value then
      call('ZREM', set, id)
    elseif not (run and careful.parse(head)) then
      careful.fail_damaged(id, 'it lacks what a lost attempt needs')
    else
      found = found + 1
      local n = #answer
      answer[n + 1], answer[n + 2], answer[n + 3] = id, run.fence, run.type
      answer[n + 4], answer[n + 5] = head, run.cancel and 1 or 0
    end
  end
end
if careful then careful.write() end
return answer
