-- ARGV: queue, the format of the keys, the number of shards, an identity for a store that has none.
-- Returns the values in force, which are these unless the shard has tasks already. The identity stays for
-- as long as the store keeps its data.
--
-- Format 1 is a part of format 2, which has more fields and sets, so a shard becomes one of format 2 by
-- saying so. From then on nodes that know format 1 alone refuse to open it; those that have opened it go on.
if redis.call('HGET', N, 'open') or redis.call('EXISTS', TAG .. ':all') == 1 then
  redis.call('HSETNX', N, 'format', ARGV[2])
  redis.call('HSETNX', N, 'shards', ARGV[3])
else
  redis.call('HSET', N, 'format', ARGV[2], 'shards', ARGV[3])
end
if ARGV[2] == '2' and redis.call('HGET', N, 'format') == '1' then redis.call('HSET', N, 'format', '2') end
redis.call('HSETNX', N, 'store', ARGV[4])
return redis.call('HMGET', N, 'format', 'shards', 'store')
