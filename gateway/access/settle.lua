-- Corrects what a request was charged, where that still counts, and frees its places.
--
-- KEYS  the windows, then the sets of places.
-- ARGV  the place's name; how many windows there are; then for each correction: the number of its window, the slot and
--       the difference.

for index = 3, #ARGV, 3 do
  local key, slot, difference = KEYS[tonumber(ARGV[index])], ARGV[index + 1], ARGV[index + 2]
  if redis.call('HEXISTS', key, slot) == 1 then
    redis.call('HINCRBY', key, slot, difference)
    redis.call('HINCRBY', key, 'total', difference)
  end
end
for index = tonumber(ARGV[2]) + 1, #KEYS do
  redis.call('ZREM', KEYS[index], ARGV[1])
end
return 1
