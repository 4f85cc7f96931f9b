-- ARGV: queue, the number of shards, an identity for a store that has none.
-- Returns the format of the keys, the number of shards and the identity in force, which are these unless the
-- shard has tasks already. The identity stays for as long as the store keeps its data. The tasks of a shard of
-- format 1 are left as they are: migrate.lua changes them, and until all of them are changed the format is 1.
local OLD = TAG .. ':n'
if call('TYPE', OLD).ok == 'hash' then
  -- A script of format 1 creates this key if it was lost, without these fields.
  for field, value in pairs({ format = '1', shards = ARGV[2], store = ARGV[3] }) do call('HSETNX', OLD, field, value) end
  return call('HMGET', OLD, 'format', 'shards', 'store')
end
call('HSETNX', SHARD, 'format', '2')
call('HSETNX', SHARD, 'store', ARGV[3])
-- Until a task has an order, another number is as good.
call(call('HEXISTS', SHARD, 'order') == 1 and 'HSETNX' or 'HSET', SHARD, 'shards', ARGV[2])
-- Nodes that know format 1 alone read this key in each of their scripts, and fail.
call('SET', OLD, 'These tasks have format 2. Use a newer version of Hostel.')
local opened = call('HMGET', SHARD, 'format', 'shards', 'store')
if call('EXISTS', TAG .. ':all') == 1 then opened[1] = '1' end
return opened
