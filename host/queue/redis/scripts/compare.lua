-- ARGV: queue, then for each submission the id, m, p, i. Compares submissions with the tasks of their ids.
-- Returns the time, and a letter for each submission: e existing, c conflict, u if there is no such task.
local answers = {}
for i = 2, #ARGV, 4 do
  answers[#answers + 1] = compare(ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]) or 'u'
end
return { integer(NOW), table.concat(answers) }
