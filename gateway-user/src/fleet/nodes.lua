-- Marks a node as alive, and counts those that are.
--
-- KEYS[1]  the nodes, each with the time in ms until which it counts as alive
-- ARGV     the node, for how many ms it counts as alive: 0 when it leaves
local now_ms = math.floor(now_us / 1000)
-- The first to write, so that a server that refuses writes (out of memory, a replica) refuses here too.
redis.call('ZADD', KEYS[1], now_ms + tonumber(ARGV[2]), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms)
return redis.call('ZCARD', KEYS[1])
