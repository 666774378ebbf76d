-- Marks a node as alive, counts those that are, and says which memory of the server's this is.
--
-- KEYS[1]  the nodes, each with the time in ms until which it counts as alive
-- KEYS[2]  the server's memory: its name, when it began, and until when it may lack what nodes have to report again
-- ARGV     the node, for how many ms it counts as alive (0 when it leaves), and the name of the memory that it knows
-- returns  {nodes, name, until when in ms}

-- As in lease.lua.
local SETTLE_MS = 2000
-- Nodes say every half second that they live. Where none has for so long, none could renew a lease: when the first is back, the
-- leases of the others may be over, and they have not reported yet what they used of their shares.
local AWAY_MS = 2000
local now_ms = math.floor(now_us / 1000)
-- The first to write, so that a server that refuses writes (out of memory, a replica) refuses here too.
redis.call('ZADD', KEYS[1], now_ms + tonumber(ARGV[2]), ARGV[1])
-- Those among them that were not heard of for long, if nobody was since.
local others = redis.call('ZCARD', KEYS[1]) - 1
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms)

local packed = redis.call('GET', KEYS[2])
local memory = packed and cmsgpack.unpack(packed)
  or { name = ARGV[1] .. '.' .. string.format('%.0f', now_us), began = now_ms, settled = 0 }
-- A node that knew another memory: that one is lost.
if ARGV[3] ~= '' and ARGV[3] ~= memory.name and now_ms < memory.began + SETTLE_MS then
  memory.settled = math.max(memory.settled, memory.began + SETTLE_MS)
end
if memory.heard and now_ms > memory.heard + AWAY_MS and others > 0 then memory.settled = now_ms + SETTLE_MS end
memory.heard = now_ms
redis.call('SET', KEYS[2], cmsgpack.pack(memory))
return { redis.call('ZCARD', KEYS[1]), memory.name, memory.settled }
