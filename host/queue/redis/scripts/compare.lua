-- ARGV: queue, then for each submission the id and the content. Compares submissions with the tasks of their
-- ids. Returns the time, and a letter for each submission: e existing, c conflict, u if there is no such task.
local careful, answers = library(), {}
for i = 2, #ARGV, 2 do
  answers[#answers + 1] = careful.compare(ARGV[i], ARGV[i + 1]) or 'u'
end
return { NOW, table.concat(answers) }
