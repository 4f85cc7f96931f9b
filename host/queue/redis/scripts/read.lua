-- ARGV: queue, id, the most bytes of the record and of its end that are returned as a whole, 1 for all that its
-- earlier attempts left. Returns what is stored of a task (shared/reading.lua); nothing if there is none.
local id = ARGV[2]
if call('EXISTS', TAG .. ':task:' .. id) == 0 then return {} end
return describe(library(), id, tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1')
