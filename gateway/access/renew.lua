-- Holds places of one set for longer.
--
-- KEYS  the set.
-- ARGV  milliseconds that they are held unless renewed again, then their names.

local clock = redis.call('TIME')
local lease = tonumber(ARGV[1])
local expiry = clock[1] * 1000 + clock[2] / 1000 + lease
for index = 2, #ARGV do
  redis.call('ZADD', KEYS[1], expiry, ARGV[index])
end
redis.call('PEXPIRE', KEYS[1], lease)
return 1
