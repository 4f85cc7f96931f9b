-- ARGV: queue, a task type, then for the type and for each group: its scope (TYPE or TYPE/GROUP), its rate in
-- units a millisecond, and how many permits were taken and not used.
-- Returns permits, and the right to lease tasks of the type.
for i = 3, #ARGV, 3 do return_permits(ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])) end
local LOCK = TAG .. ':limit:' .. ARGV[2]
if call('GET', LOCK) == FROM then call('DEL', LOCK) end
