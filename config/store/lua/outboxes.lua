-- An SMS is taken from its outbox, and settled.

local FRESH_MS = 1000      -- a booked permit not used by then is void, or many would be used at once
local TRIES = 20          -- failed tries of an SMS that are remembered

-- take: KEYS fence, outbox-alarms, then (outbox, outbox-lock) for each sender; ARGV owner, lease ms, a sender each.
-- Answers, for each sender, 0 (nothing to send now) or {fence, now, attempts so far, ms of the first of them (0: none),
-- 1 if the provider may have it, permit, entry}: the oldest SMS, which nobody else will try until the lease ends. The
-- provider may have it if it was left so, or in the middle of a try whose worker never came back. permit: the epoch in
-- which one was booked for now, or -1.
local function take(keys, args)
  local now = clock()
  local owner, lease = args[1], tonumber(args[2])

  local function one(sender, outbox, lock_key)
    local lock = read_lock(lock_key)
    local mine = lock and (lock.owner == owner or lock.owner == owner .. '?')
    local entry = redis.call('LINDEX', outbox, 0)
    if not entry then
      redis.call('ZREM', keys[2], sender)
      return 0
    end
    if mine then return {lock.fence, now, lock.attempts - 1, lock.since, lock.owner == owner and 0 or 1, -1, entry} end
    if lock and lock.till > now then
      redis.call('ZADD', keys[2], ms(lock.till), sender)
      return 0
    end
    local attempts, since, left, permit = 0, 0, 0, -1
    if lock then
      local verdict, unsure = string.match(lock.owner, '^(.-)(%??)$')
      if verdict == GONE then
        attempts, since = 0, 0
      else
        attempts, since = lock.attempts, lock.since
        if lock.fence > 0 or unsure ~= '' then left = 1 end
        local fresh = lock.fence == 0 and now - lock.till <= FRESH_MS
        local booked = fresh and string.match(verdict, '^' .. BOOKED .. '(%d*)$')
        if booked then permit = tonumber(booked) or 0 end
      end
    end
    local fence = new_fences(keys[1], now, 1)
    write_lock(lock_key, now, {
      fence = fence, till = now + lease, attempts = attempts + 1, since = since > 0 and since or now,
      owner = left == 1 and owner .. '?' or owner,
    })
    redis.call('ZADD', keys[2], ms(now + lease), sender)
    return {fence, now, attempts, since, left, permit, entry}
  end

  local answers = {}
  for i = 3, #args do
    local k = 2 * (i - 3) + 3
    answers[i - 2] = one(args[i], keys[k], keys[k + 1])
  end
  return answers
end

-- settle: KEYS outbox-alarms, events, dead, dead-index, outbox, outbox-lock, tickets, alarms, mailbox, dead-reasons, tries;
-- ARGV sender, fence, entry, verdict, rest ms, ms to keep events, records, dead letter's id, dead letter, '?' if the
-- provider may have the SMS that stays, its ticket (to be remembered), mail for the lane (kind .. event), ms of its first
-- try that may matter (0: none) should this one not count, and what the try came to (empty: none was made, or it was
-- accepted), which is remembered until the SMS goes.
-- verdict: 'done' (accepted, or buried: the entry goes), 'again' (it stays, the try counts), 'untried' (it stays),
-- 'booked' .. epoch (it stays, with a permit for when it has rested).
-- Then the sender rests for `rest ms`. Answers 1 if another SMS may be taken at once, 0 if not (or if the fence is old).
local function settle(keys, args)
  local outbox_alarms, events, dead, index, outbox, lock_key, tickets, alarms, mailbox, reasons, tries = unpack(keys)
  local sender, entry, verdict, rest = args[1], args[3], args[4], tonumber(args[5])
  local now = clock()
  local lock = read_lock(lock_key)
  if not lock or lock.fence ~= tonumber(args[2]) then return 0 end
  local attempts, since, unsure = lock.attempts, lock.since, args[10]
  if verdict == 'done' then
    redis.call('LREM', outbox, 1, entry)
    attempts = 0
  elseif lock.owner == GONE then -- what it would have had to wait for is nothing to the next one
    attempts, rest, unsure = 0, 0, ''
  elseif verdict ~= 'again' then
    attempts = attempts - 1
    if unsure == '' then since = tonumber(args[13]) end
  end
  if verdict == 'done' or lock.owner == GONE then
    since = 0
    redis.call('DEL', tries)
  elseif args[14] ~= '' then
    redis.call('RPUSH', tries, args[14])
    redis.call('LTRIM', tries, -TRIES, -1)
    redis.call('PEXPIRE', tries, ms(rest + FORGET_MS))
  end
  if args[7] ~= '' then
    record(events, now, args[6], sender, args[7])
  end
  if args[8] ~= '' then bury(dead, index, reasons, now, args[8], args[9]) end
  if args[11] ~= '' then
    redis.call('LPUSH', tickets, args[11])
    redis.call('LTRIM', tickets, 0, TICKETS - 1)
    redis.call('PEXPIRE', tickets, ms(TICKETS_MS))
  end
  if args[12] ~= '' then accept({alarms, mailbox}, {sender, args[12]}) end

  local more = redis.call('EXISTS', outbox) == 1
  if rest > 0 or attempts > 0 or since > 0 then
    write_lock(lock_key, now,
      {fence = 0, till = now + rest, attempts = attempts, since = since, owner = verdict .. unsure})
    if not more then redis.call('PEXPIRE', lock_key, ms(math.max(1, rest))) end
  else
    redis.call('DEL', lock_key)
  end
  if more then
    redis.call('ZADD', outbox_alarms, ms(now + (rest > 0 and rest or LOOK_MS)), sender)
  else
    redis.call('ZREM', outbox_alarms, sender)
  end
  return more and rest == 0 and 1 or 0
end

register('take', take, {'allow-oom'})
register('settle', settle, {'allow-oom'})
