-- ARGV: queue, ttl, then for each lease the id, the fencing token, and the progress or nothing.
-- Returns a letter for each lease: h held, k held and cancellation requested, l lost.
local ends = format('%d', NOW + tonumber(ARGV[2]))
local ids, leases, answers, reported = {}, {}, {}, {}
for i = 3, #ARGV, 3 do ids[#ids + 1] = ARGV[i] end
local held = call('HMGET', TAG .. ':run', unpack(ids))
for k = 1, #ids do
  local fence, route, cancel = string.match(held[k] or '', '^%d+ (%d+) %S+ (%S+) [-%d]+[^ ]*(.*)$')
  if fence == ARGV[3 * k + 1] then
    local task_type = string.match(route, '^[^@]+')
    local list = leases[task_type] or {}
    leases[task_type] = list
    list[#list + 1] = ends
    list[#list + 1] = ids[k]
    answers[k] = cancel ~= '' and 'k' or 'h'
    local progress = ARGV[3 * k + 2]
    if progress ~= '' then
      reported[#reported + 1] = ids[k]
      reported[#reported + 1] = progress
    end
  else
    answers[k] = 'l'
  end
end
for task_type, list in pairs(leases) do call('ZADD', TAG .. ':leases:' .. task_type, unpack(list)) end
if #reported > 0 then call('HSET', TAG .. ':progress', unpack(reported)) end
return table.concat(answers)
