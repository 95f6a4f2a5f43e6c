-- Replies that go into the answer of a webhook, and not by a delivery worker. Never both: while the outbox is reserved, nobody
-- else sends; what an answer holds is marked first, and the provider is asked for it before it is sent again.

local function is_reserved(lock, token)
  return lock and lock.state == STATE.reserved and lock.tag == token
end

-- For a webhook whose answer may hold the replies: keeps delivery workers away until the lease ends, if nothing waits and
-- nothing is being sent. Answers 1 if so, else 0.
local function reserve_outbox(keys, args)
  local now = clock()
  local lock_key = keys.outbox_lock
  local lock = read_outbox_lease(lock_key, now, 0)
  if is_reserved(lock, args.token) then return 1 end
  local taken = lock and lock.till > now and (lock.fence > 0 or lock.state == STATE.reserved)
  if taken or redis.call('EXISTS', keys.outbox) == 1 then return 0 end
  local till = now + tonumber(args.lease_ms)
  write_outbox_lock(lock_key, now,
    {fence = 0, till = till, attempts = 0, since = 0, state = STATE.reserved, tag = args.token})
  redis.call('PEXPIREAT', lock_key, ms(till))
  return 1
end

-- Answers 0 while the lane has mail or is being advanced, -1 if the outbox is not reserved any more, else its entries.
local function poll_replies(keys, args)
  if not is_reserved(read_outbox_lock(keys.outbox_lock), args.token) then return -1 end
  if redis.call('EXISTS', keys.mailbox, keys.lane_lock) > 0 then return 0 end
  return redis.call('LRANGE', keys.outbox, 0, -1)
end

-- If the SMS that the answer is going to hold are the oldest, the outbox is reserved and no mail waits that may be a STOP,
-- they are marked, all of them, and the sender rests until the provider can be asked for them. Answers 1 if so, 0 if nothing
-- changed.
local function attach_replies(keys, args)
  local now = clock()
  local till = now + tonumber(args.rest_ms)
  local lock = read_outbox_lock(keys.outbox_lock)
  if lock and lock.state == STATE.entrusted and lock.tag == args.token then return 1 end
  if not is_reserved(lock, args.token) or stop_may_wait(keys.mailbox) then return 0 end
  local waiting = redis.call('LRANGE', keys.outbox, 0, #args.replies - 1)
  for i = 1, #args.replies do
    if waiting[i] ~= args.replies[i].entry then return 0 end
  end
  for i = 1, #args.replies do redis.call('LSET', keys.outbox, i - 1, args.replies[i].marked) end
  write_outbox_lock(keys.outbox_lock, now,
    {fence = 0, till = till, attempts = 1, since = now, state = STATE.entrusted, tag = args.token, uncertain = true})
  redis.call('ZADD', keys.outbox_alarms, ms(till), args.sender)
  return 1
end

-- The provider has told of an SMS that was attached, so nobody need ask for it. The sender rests as after any SMS, once none
-- of the answer is unheard of. Does nothing on a server on which nobody may work yet: the lock tells who looks there that more
-- may have left, and the provider is asked. Answers 1 if the next may be leased.
local function confirm_reply(keys, args)
  local outbox, lock_key, alarms, sender = keys.outbox, keys.outbox_lock, keys.outbox_alarms, args.sender
  local now = clock()
  local lock = read_outbox_lock(lock_key)
  if not lock or lock.state ~= STATE.entrusted or not lost_before(keys.server, now) then return 0 end
  if redis.call('LREM', outbox, 1, args.entry) == 0 then return 0 end
  record(keys.events, sender, args.records)
  note_ticket(keys.tickets, args.ticket)
  if redis.call('EXISTS', outbox) == 0 then
    redis.call('DEL', lock_key)
    redis.call('ZREM', alarms, sender)
    return 0
  end
  if args.others_unheard == '1' then return 0 end
  local till = math.max(now, lock.since + tonumber(args.pause_ms))
  write_outbox_lock(lock_key, now, {fence = 0, till = till, attempts = 0, since = 0, state = STATE.done})
  redis.call('ZADD', alarms, ms(till > now and till or now + LOOK_MS), sender)
  return till > now and 0 or 1
end

-- Answers 1 if something waits for a delivery worker now.
local function release_outbox(keys, args)
  if not is_reserved(read_outbox_lock(keys.outbox_lock), args.token) then return 0 end
  redis.call('DEL', keys.outbox_lock)
  if redis.call('EXISTS', keys.outbox) == 0 then return 0 end
  redis.call('ZADD', keys.outbox_alarms, ms(clock() + LOOK_MS), args.sender)
  return 1
end

register('reserve_outbox', reserve_outbox, {'allow-oom'})
register('poll_replies', poll_replies, {'allow-oom'})
register('attach_replies', attach_replies, {'allow-oom'})
register('confirm_reply', confirm_reply, {'allow-oom'})
register('release_outbox', release_outbox, {'allow-oom'})
