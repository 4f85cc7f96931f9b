-- ARGV: queue, state or nothing, type or nothing, how many to return, order and id of the last task of the
-- previous page (or nothing), how many to read, how many bytes to return, group or nothing, tag or nothing.
-- Returns where it stopped (order and id, or nothing at the end), and for each task its id, its order and
-- its fields without head, payload and result.
local state, task_type, size = ARGV[2], ARGV[3], tonumber(ARGV[4])
local order, after, scan, max_bytes = ARGV[5], ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local group, tag = ARGV[9], ARGV[10]
local set = TAG .. ':all'
if state == 'f' or state == 'x' then set = TAG .. ':dead:' .. state end
-- The set that is likely to be the smallest; a task in it is compared with the rest of the filter.
if group ~= '' then set = TAG .. ':index:g:' .. group end
if tag ~= '' then set = TAG .. ':index:t:' .. tag end

-- Whether a task with the field y has the group and the tag.
local function has_options(y)
  if group == '' and tag == '' then return true end
  if not y then return false end
  local _, _, _, its_group, _, tags = parse_options(y)
  return (group == '' or its_group == group)
    and (tag == '' or string.find((tags or '') .. ' ', ' ' .. tag .. ' ', 1, true) ~= nil)
end
local from = order == '' and '+inf' or order
local found = redis.call('ZRANGE', set, from, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, scan, 'WITHSCORES')
local rows, bytes, stopped = {}, 0, { '', '' }
for i = 1, #found, 2 do
  local id = found[i]
  -- Two tasks share an order only if a clock was set back. Then the later id is first.
  if not (found[i + 1] == order and id >= after) then
    local there = read(id, 's', 'l', 'y')
    if there[1] and (state == '' or there[1] == state)
      and (task_type == '' or there[2] and type_of(there[2]) == task_type) and has_options(there[3]) then
      local fields = redis.call('HMGET', key(id), 's', 't', 'u', 'a', 'b', 'n', 'k', 'e', 'w', 'z', 'd', 'l', 'v', 'i')
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
