-- ARGV: from, then for each ending id, fence, what (c completed, p tried again, f failed, x cancelled,
-- b given back, l lost and not charged, d its record is damaged), how long until it is due again, result or error, who ran it
-- (JSON, or nothing). Answers the time, and for each ending the state that the task is in now (d where its
-- record is damaged), its lane, and 1 where the ending had been applied before, by this queue, which did not hear
-- so; two nothings where the token held nothing.
local me = string.sub(FROM, -8)
local answers = {}
for i = 2, #ARGV, 6 do
  local id, fence, what = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local after, text, ran = tonumber(ARGV[i + 3]), ARGV[i + 4], ARGV[i + 5]
  local task = key(id)
  local there = read(id, 's', 'f', 'l', 'o', 'q', 'a', 'k', 'z', 'g', 't', 'u', 'b', 'n', 'm', 'v')
  local lane = sound(there[3])
  -- A mark that no other ending of this task has.
  local ending = fence .. ' ' .. me .. what .. #text .. ' ' .. string.sub(text, -8)
  if there[1] ~= 'r' or there[2] ~= fence then
    local repeated = there[9] == ending and lane
    answers[#answers + 1] = repeated and { there[1], lane, '1' } or { '', '', '' }
  elseif what == 'd' then
    answers[#answers + 1] = { 'd', condemn(id, text), '' }
  elseif not (lane and there[13] and there[14] and tonumber(there[4]) and tonumber(there[5]) and tonumber(there[6])
    and tonumber(there[8]) and tonumber(there[10]) and tonumber(there[11]) and tonumber(there[12])) then
    answers[#answers + 1] = { 'd', condemn(id, 'it lacks what an ending needs'), '' }
  else
    local state = what
    if what == 'p' or what == 'b' or what == 'l' then
      -- Whose end was asked for is not tried again.
      state = there[7] and 'x' or 'p'
    end
    local at = state == 'p' and NOW + after or NOW
    local set = { 's', state, 'u', whole(at), 'g', ending }
    local function also(field, value) set[#set + 1] = field; set[#set + 1] = value end
    local losses = tonumber(there[15]) or 0
    if what == 'b' or what == 'l' then also('a', math.max(0, tonumber(there[6]) - 1)) end
    if what == 'l' then
      losses = losses + 1
      also('v', losses)
    end
    if what ~= 'b' and ran ~= '' then
      also('w', ran)
    end
    if what == 'c' then also('r', text) elseif what == 'p' or what == 'f' or what == 'l' then also('e', text) end
    if state == 'p' then
      wait(id, line_of(lane, losses), at, tonumber(there[5]))
    else
      also('z', tonumber(there[8]) + 1)
      bury(id, state, tonumber(there[4]))
    end
    redis.call('HSET', task, unpack(set))
    if there[7] then redis.call('HDEL', task, 'k') end
    if what ~= 'b' and ran == '' then redis.call('HDEL', task, 'w') end
    remove(TAG .. ':leases', id)
    move(id, lane, 'r', state, tonumber(there[4]))
    answers[#answers + 1] = { state, lane, '' }
  end
end
write()
return { whole(NOW), answers }
