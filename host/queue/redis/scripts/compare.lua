-- ARGV: queue, id, m, p. Compares a submission with the task of its id: e existing, c conflict, or nothing if
-- there is no such task.
return compare(ARGV[2], ARGV[3], ARGV[4]) or ''
