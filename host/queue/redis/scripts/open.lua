-- ARGV: queue, the format of the keys, the number of shards, an identity for a store that has none.
-- Returns the values in force, which are these unless the shard has tasks already. The identity stays for
-- as long as the store keeps its data.
if redis.call('HGET', N, 'open') or redis.call('EXISTS', TAG .. ':all') == 1 then
  redis.call('HSETNX', N, 'format', ARGV[2])
  redis.call('HSETNX', N, 'shards', ARGV[3])
else
  redis.call('HSET', N, 'format', ARGV[2], 'shards', ARGV[3])
end
redis.call('HSETNX', N, 'store', ARGV[4])
return redis.call('HMGET', N, 'format', 'shards', 'store')
