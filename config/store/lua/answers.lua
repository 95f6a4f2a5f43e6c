-- Replies that go into the answer of a webhook, and not by a delivery worker.

-- A reserved outbox is at rest, and its lock's owner is 'reserved ' and the token of whoever reserved it.
local function is_reserved(lock, token)
  return lock and lock.fence == 0 and lock.owner == 'reserved ' .. token
end

-- reserve: KEYS outbox, outbox-lock; ARGV token, lease ms. For a webhook whose answer may hold the replies: keeps delivery
-- workers away until the lease ends, if nothing waits and nothing is being sent. Answers 1 if so, else 0.
local function reserve(keys, args)
  local now = clock()
  local lock = read_lock(keys[2])
  if is_reserved(lock, args[1]) then return 1 end
  local taken = lock and lock.till > now and (lock.fence > 0 or string.sub(lock.owner, 1, 9) == 'reserved ')
  if taken or redis.call('EXISTS', keys[1]) == 1 then return 0 end
  local till = now + tonumber(args[2])
  write_lock(keys[2], now, {fence = 0, till = till, attempts = 0, since = 0, owner = 'reserved ' .. args[1]})
  redis.call('PEXPIREAT', keys[2], ms(till))
  return 1
end

-- overhear: KEYS mailbox, lock, outbox, outbox-lock; ARGV token. Answers 0 while the lane has mail or is being advanced,
-- -1 if the outbox is not reserved any more, else its entries.
local function overhear(keys, args)
  if not is_reserved(read_lock(keys[4]), args[1]) then return -1 end
  if redis.call('EXISTS', keys[1], keys[2]) > 0 then return 0 end
  return redis.call('LRANGE', keys[3], 0, -1)
end

-- entrust: KEYS outbox-alarms, outbox, outbox-lock; ARGV sender, token, rest ms, then (entry, the same marked uncertain)
-- for each SMS that the answer is going to hold. If they are the oldest and the outbox is reserved, they are marked, and
-- the sender rests until the provider can be asked for them. Answers 1 if so, 0 if nothing changed.
local function entrust(keys, args)
  local now = clock()
  local sender, token, rest = args[1], args[2], tonumber(args[3])
  local lock = read_lock(keys[3])
  local owner = 'entrusted ' .. token .. '?'
  if lock and lock.owner == owner then return 1 end
  if not is_reserved(lock, token) then return 0 end
  local waiting = redis.call('LRANGE', keys[2], 0, (#args - 3) / 2 - 1)
  for i = 4, #args, 2 do
    if waiting[(i - 4) / 2 + 1] ~= args[i] then return 0 end
  end
  for i = 4, #args, 2 do redis.call('LSET', keys[2], (i - 4) / 2, args[i + 1]) end
  write_lock(keys[3], now, {fence = 0, till = now + rest, attempts = 1, since = now, owner = owner})
  redis.call('ZADD', keys[1], ms(now + rest), sender)
  return 1
end

-- confirm: KEYS outbox-alarms, events, outbox, outbox-lock, tickets; ARGV sender, entry, 1 if the answer held others
-- that nobody has heard of, pause ms, keep ms, records, ticket. The provider has told of an SMS that an answer was
-- entrusted with, so nobody need ask for it. The sender rests as after any SMS. Answers 1 if the next may be taken.
local function confirm(keys, args)
  local outbox_alarms, events, outbox, lock_key, tickets = unpack(keys)
  local now = clock()
  local lock = read_lock(lock_key)
  if not lock or lock.fence > 0 or string.sub(lock.owner, 1, 10) ~= 'entrusted ' then return 0 end
  if redis.call('LREM', outbox, 1, args[2]) == 0 then return 0 end
  record(events, now, args[5], args[1], args[6])
  redis.call('LPUSH', tickets, args[7])
  redis.call('LTRIM', tickets, 0, TICKETS - 1)
  redis.call('PEXPIRE', tickets, ms(TICKETS_MS))
  if redis.call('EXISTS', outbox) == 0 then
    redis.call('DEL', lock_key)
    redis.call('ZREM', outbox_alarms, args[1])
    return 0
  end
  if args[3] == '1' then return 0 end
  local till = math.max(now, lock.since + tonumber(args[4]))
  write_lock(lock_key, now, {fence = 0, till = till, attempts = 0, since = 0, owner = 'done'})
  redis.call('ZADD', outbox_alarms, ms(till > now and till or now + LOOK_MS), args[1])
  return till > now and 0 or 1
end

-- unreserve: KEYS outbox-alarms, outbox, outbox-lock; ARGV sender, token. Answers 1 if something waits for a delivery
-- worker now.
local function unreserve(keys, args)
  if not is_reserved(read_lock(keys[3]), args[2]) then return 0 end
  redis.call('DEL', keys[3])
  if redis.call('EXISTS', keys[2]) == 0 then return 0 end
  redis.call('ZADD', keys[1], ms(clock() + LOOK_MS), args[1])
  return 1
end

register('reserve', reserve, {'allow-oom'})
register('overhear', overhear, {'allow-oom'})
register('entrust', entrust, {'allow-oom'})
register('confirm', confirm, {'allow-oom'})
register('unreserve', unreserve, {'allow-oom'})
