-- ARGV: from, the format of these keys, how many shards there are, an identity for a store that has none.
-- Answers what is in force, which is this unless tasks are there already; the identity stays as long as
-- the store keeps its data.
if redis.call('HGET', N, 'open') or redis.call('EXISTS', TAG .. ':all') == 1 then
  redis.call('HSETNX', N, 'format', ARGV[2])
  redis.call('HSETNX', N, 'shards', ARGV[3])
else
  redis.call('HSET', N, 'format', ARGV[2], 'shards', ARGV[3])
end
redis.call('HSETNX', N, 'store', ARGV[4])
return redis.call('HMGET', N, 'format', 'shards', 'store')
