-- Charges a request to all of its limits, or to none. Times are whole microseconds of the server's clock.
--
-- KEYS  the windows, then the sets of places.
-- ARGV  "1" to look only; milliseconds that a place is held unless renewed; the place's name; how many windows there are;
--       for each window: microseconds of a slot, the amount, the limit; for each set of places: the limit.
-- Returns 1 or 0 (refused); the time; for each window: what is used, the wait until the amount fits, the time until all
-- is free; for each set of places: those taken.
--
-- A window is a hash: a field for each slot, the number of the first and the newest of them, and their total.

local SLOTS = 100

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local only_look, lease, name, count = ARGV[1] == '1', tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])

local function slots_of(key, first, last)
  local names = {}
  for slot = first, last do
    names[#names + 1] = slot
  end
  return names, redis.call('HMGET', key, unpack(names))
end

-- Forgets what has left the window since it was last looked at.
local function forget(window, kept)
  local names, amounts = slots_of(window.key, window.first, math.min(kept - 1, window.newest))
  for index = 1, #names do
    window.total = window.total - tonumber(amounts[index] or 0)
  end
  window.first = kept
  window.newest = math.max(window.newest, kept)
  redis.call('HDEL', window.key, unpack(names))
  redis.call('HSET', window.key, 'total', window.total, 'first', window.first, 'newest', window.newest)
end

local function open(key, length, amount, limit)
  local slot = math.floor(now / length)
  local fields = redis.call('HMGET', key, 'total', 'first', 'newest', slot)
  local window = {
    key = key, length = length, amount = amount, limit = limit, slot = slot,
    total = tonumber(fields[1] or 0), first = tonumber(fields[2] or slot), newest = tonumber(fields[3] or slot),
    charged = fields[4] and tonumber(fields[4]),
  }
  if window.first < slot - SLOTS then
    forget(window, slot - SLOTS)
  end
  return window
end

local function end_of(window, slot)
  return (slot + 1 + SLOTS) * window.length - now
end

local function wait(window)
  local excess = window.total + window.amount - window.limit
  if excess <= 0 or window.amount == 0 then
    return 0
  end
  local names, amounts = slots_of(window.key, window.first, window.newest)
  for index, slot in ipairs(names) do
    excess = excess - tonumber(amounts[index] or 0)
    if excess <= 0 then
      return end_of(window, slot)
    end
  end
  return end_of(window, window.newest)
end

local function charge(window)
  window.total = window.total + window.amount
  window.newest = math.max(window.newest, window.slot)
  redis.call('HSET', window.key, 'total', window.total, window.slot, (window.charged or 0) + window.amount,
    'first', math.min(window.first, window.slot), 'newest', window.newest)
  if not window.charged then
    redis.call('PEXPIRE', window.key, math.ceil(window.length * (SLOTS + 2) / 1000))
  end
end

local function take(key)
  redis.call('ZADD', key, now / 1000 + lease, name)
  redis.call('PEXPIRE', key, lease)
end

local fits, windows, taken = true, {}, {}
for index = 1, count do
  local at = 2 + 3 * index
  local window = open(KEYS[index], tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]))
  -- Nothing always fits, also while there is a debt.
  fits = fits and (window.amount == 0 or window.total + window.amount <= window.limit)
  windows[index] = window
end
for index = count + 1, #KEYS do
  redis.call('ZREMRANGEBYSCORE', KEYS[index], '-inf', now / 1000)
  taken[#taken + 1] = redis.call('ZCARD', KEYS[index])
  fits = fits and taken[#taken] < tonumber(ARGV[4 + 3 * count + #taken])
end

local charged = fits and not only_look
local reply = { fits and 1 or 0, now }
for _, window in ipairs(windows) do
  local left = fits and 0 or wait(window)
  if charged then
    charge(window)
  end
  reply[#reply + 1] = window.total
  reply[#reply + 1] = left
  reply[#reply + 1] = window.total > 0 and end_of(window, window.newest) or 0
end
for index, places in ipairs(taken) do
  if charged then
    take(KEYS[count + index])
  end
  reply[#reply + 1] = places
end
return reply
