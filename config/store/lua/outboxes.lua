-- The oldest SMS of an outbox is leased to one worker, and the outbox updated with what came of the try.

local FRESH_MS = 1000      -- a booked permit not used by then is void, or many would be used at once
local TRIES = 20           -- failed tries of an SMS that are remembered

-- Answers, for each sender, 0 (nothing to send now, or mail waits that may be a STOP) or {fence, now, attempts so far, ms of
-- the first of them (0: none), 1 if the provider may have it, permit, ms before which tries may be lost, entry}: the oldest
-- SMS, which nobody else will try until the lease ends. The
-- provider may have it if it was left so, or in the middle of a try whose worker never came back. permit: the epoch in
-- which one was booked for now, or -1. The same owner asking again gets the same. Where its provider is asked for an SMS, one
-- whose try never came back rests first, from the lease's end on: a provider may not list yet what it has just got.
local function lease_sms(keys, args)
  local now = clock()
  local lost = lost_before(keys.server, now)
  if not lost then return UNKNOWN_SERVER end
  local owner, lease, pause = args.owner, tonumber(args.lease_ms), tonumber(args.longest_pause_ms)
  local fences, alarms = keys.fence, keys.outbox_alarms
  local rest, asked = tonumber(args.uncertain_rest_ms), {}
  for i = 1, #args.asked_channels do asked[args.asked_channels[i]] = true end

  local function one(sender, mailbox, outbox, lock_key)
    local lock = read_outbox_lease(lock_key, now, pause)
    local entry = redis.call('LINDEX', outbox, 0)
    if not entry then
      redis.call('ZREM', alarms, sender)
      if lock and lock.state ~= STATE.reserved then let_outbox_lock_end(lock_key, now, lock) end
      return 0
    end
    if lock and lock.state == STATE.trying and lock.tag == owner then
      return {lock.fence, now, lock.attempts - 1, lock.since, lock.uncertain and 1 or 0, -1, lost, entry}
    end
    local abandoned = lock and lock.state == STATE.trying and lock.till <= now
    if abandoned and now < lock.till + rest and asked[string.match(entry, '^%Z*')] then
      lock.fence, lock.till, lock.state, lock.tag, lock.uncertain = 0, lock.till + rest, STATE.again, '', true
      write_outbox_lock(lock_key, now, lock)
    end
    if lock and lock.till > now then
      redis.call('ZADD', alarms, ms(lock.till), sender)
      return 0
    end
    if stop_may_wait(mailbox) then
      redis.call('ZADD', alarms, ms(now + LOOK_MS), sender)
      return 0
    end
    local attempts, since, uncertain, permit = 0, 0, false, -1
    if lock and lock.state ~= STATE.gone then
      attempts, since = lock.attempts, lock.since
      uncertain = lock.fence > 0 or lock.uncertain
      if lock.state == STATE.booked and now - lock.till <= FRESH_MS then permit = tonumber(lock.tag) or 0 end
    end
    local fence = new_fences(fences, now, 1)
    write_outbox_lock(lock_key, now, {
      fence = fence, till = now + lease, attempts = attempts + 1, since = since > 0 and since or now,
      state = STATE.trying, tag = owner, uncertain = uncertain,
    })
    redis.call('ZADD', alarms, ms(now + lease), sender)
    return {fence, now, attempts, since, uncertain and 1 or 0, permit, lost, entry}
  end

  local answers = {}
  for i = 1, #args.outboxes do
    answers[i] = one(args.outboxes[i].sender, keys.outboxes[i].mailbox, keys.outboxes[i].outbox, keys.outboxes[i].outbox_lock)
  end
  return answers
end

-- A ticket of the provider's is remembered.
local function note_ticket(tickets, ticket)
  redis.call('LPUSH', tickets, ticket)
  redis.call('LTRIM', tickets, 0, TICKETS - 1)
  redis.call('PEXPIRE', tickets, ms(TICKETS_MS))
end

-- Changes nothing but if `fence` is the lock's. The entry goes if it is done, else it stays; the try counts if it is to be
-- made again, else not. Answers 1 if another SMS may be leased at once, 0 if not (or if the fence is old).
local function update_outbox(keys, args)
  local outbox, lock_key, tries = keys.outbox, keys.outbox_lock, keys.failed_attempts
  local sender, disposition, rest = args.sender, args.disposition, tonumber(args.rest_ms)
  local now = clock()
  local lock = read_outbox_lock(lock_key)
  if not lock or lock.fence ~= tonumber(args.fence) then return 0 end
  if not lost_before(keys.server, now) then return UNKNOWN_SERVER end -- the lock tells who looks there that more may have left
  local attempts, since, uncertain = lock.attempts, lock.since, args.uncertain == '1'
  if disposition == STATE.done then
    redis.call('LREM', outbox, 1, args.entry)
    attempts = 0
  elseif lock.state == STATE.gone then -- what it would have had to wait for is nothing to the next one
    attempts, rest, uncertain = 0, 0, false
  elseif disposition ~= STATE.again then
    attempts = attempts - 1
    if not uncertain then since = tonumber(args.first_attempt_ms) end
  end
  if disposition == STATE.done or lock.state == STATE.gone then
    since = 0
    redis.call('DEL', tries)
  elseif args.failed_attempt ~= '' then
    redis.call('RPUSH', tries, args.failed_attempt)
    redis.call('LTRIM', tries, -TRIES, -1)
    redis.call('PEXPIRE', tries, ms(rest + FORGET_MS))
  end
  if args.records ~= '' then record(keys.events, sender, args.records) end
  if args.dead_letter_id ~= '' and add_letter(keys.dead_letters, keys.dead_letter_index, keys.dead_letter_reasons, now,
      args.dead_letter_id, args.dead_letter) then
    record_letter(keys.events, sender, now, args.dead_letter_id, args.dead_letter)
  end
  if args.ticket ~= '' then note_ticket(keys.tickets, args.ticket) end
  if args.lane_mail ~= '' then deliver_event(keys.lane_alarms, keys.mailbox, now, sender, args.lane_mail, ms(now)) end

  local more = redis.call('EXISTS', outbox) == 1
  if rest > 0 or attempts > 0 or since > 0 then
    write_outbox_lock(lock_key, now, {
      fence = 0, till = now + rest, attempts = attempts, since = since, state = disposition,
      tag = disposition == STATE.booked and args.permit_epoch ~= '0' and args.permit_epoch or '', uncertain = uncertain,
    })
    if not more then redis.call('PEXPIRE', lock_key, ms(math.max(1, rest))) end
  else
    redis.call('DEL', lock_key)
  end
  if more then
    redis.call('ZADD', keys.outbox_alarms, ms(now + (rest > 0 and rest or LOOK_MS)), sender)
  else
    redis.call('ZREM', keys.outbox_alarms, sender)
  end
  return more and rest == 0 and 1 or 0
end

-- The clock was set back: whoever rests does so for what was left of it, not for as much longer. What is nearer than half of
-- the step is not of before, or nearly over: so it is moved once, however often this is called. Answers how many have moved.
local function turn_back(keys, args)
  local now, behind = clock(), tonumber(args.behind_ms)
  local moved = 0
  for i = 1, #args.outboxes do
    local waits = redis.call('EXISTS', keys.outboxes[i].outbox) == 1
    local lock = waits and read_outbox_lock(keys.outboxes[i].outbox_lock)
    if lock and lock.till > now + behind / 2 then
      lock.till = math.max(now, lock.till - behind)
      write_outbox_lock(keys.outboxes[i].outbox_lock, now, lock)
    end
    local at = tonumber(redis.call('ZSCORE', keys.outbox_alarms, args.outboxes[i].sender) or '0')
    if at > now + behind / 2 then
      redis.call('ZADD', keys.outbox_alarms, ms(math.max(now, at - behind)), args.outboxes[i].sender)
      moved = moved + 1
    end
  end
  return moved
end

register('lease_sms', lease_sms, {'allow-oom'})
register('update_outbox', update_outbox, {'allow-oom'})
register('turn_back', turn_back, {'allow-oom'})
