-- ARGV: queue, state or nothing, type or nothing, how many to return, order and id of the last task of the
-- previous page (or nothing), how many to read, how many bytes to return.
-- Returns where it stopped (order and id, or nothing at the end), and for each task its id, its order and
-- its fields without head, payload and result.
local state, task_type, size = ARGV[2], ARGV[3], tonumber(ARGV[4])
local order, after, scan, max_bytes = ARGV[5], ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local set = TAG .. ':all'
if state == 'f' or state == 'x' then set = TAG .. ':dead:' .. state end
local from = order == '' and '+inf' or order
local found = redis.call('ZRANGE', set, from, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, scan, 'WITHSCORES')
local rows, bytes, stopped = {}, 0, { '', '' }
for i = 1, #found, 2 do
  local id = found[i]
  -- Two tasks share an order only if a clock was set back. Then the later id is first.
  if not (found[i + 1] == order and id >= after) then
    local there = read(id, 's', 'l')
    if there[1] and (state == '' or there[1] == state)
      and (task_type == '' or there[2] and type_of(there[2]) == task_type) then
      local fields = redis.call('HMGET', key(id), 's', 't', 'u', 'a', 'b', 'n', 'k', 'e', 'w', 'z', 'd', 'l', 'v')
      rows[#rows + 1] = { id, found[i + 1], fields }
      for _, value in ipairs(fields) do bytes = bytes + (value and #value or 0) end
      if #rows == size or bytes >= max_bytes then
        stopped = { found[i + 1], id }
        break
      end
    end
  end
  if i + 1 == 2 * scan then stopped = { found[i + 1], id } end
end
return { stopped[1], stopped[2], rows }
