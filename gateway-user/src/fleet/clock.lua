-- The server's clock, so that no node's clock decides over a budget. In microseconds since 1970-01-01 UTC.
local clock = redis.call('TIME')
local now_us = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
