-- Dead letters get a second chance: ours under the lane's own lock, stock Dramatiq's in their queue.

-- reopen: KEYS fence, alarms, optouts, dead, then (mailbox, lane, lock) for each letter; ARGV owner, lease ms, most mail,
-- then (sender, hash, letter's id) each. Claims lanes for their dead letters: the mail that waits is only looked at.
-- Answers, for each: 0 the letter is gone, 1 the lane is held, or its last holder never came back and has mail or a
-- deadline to answer for, or {fence, now, state, opt-outs, letter, mail entry ...}. The same owner asking again gets the
-- same.
local function reopen(keys, args)
  local now = clock()
  local owner, lease, most = args[1], tonumber(args[2]), tonumber(args[3])
  local noted = new_alarms()

  local function one(sender, hash, id, mailbox, lane, lock_key)
    local letter = redis.call('HGET', keys[4], id)
    if not letter then return 0 end
    local lock = read_lock(lock_key)
    local mine = lock and lock.owner == owner
    local mail = redis.call('LRANGE', mailbox, 0, most - 1)
    local _, deadline, state = read_lane(lane)
    if lock and not mine then
      if lock.till > now then return 1 end
      if lock.attempts > 0 and (#mail > 0 or (deadline > 0 and deadline <= now)) then return 1 end
    end
    local fence = mine and lock.fence or new_fences(keys[1], now, 1)
    if not mine then
      write_lock(lock_key, now, {fence = fence, till = now + lease, attempts = 0, since = now, owner = owner})
      note_alarm(noted, sender, now + lease)
    end
    local answer = {fence, now, state, redis.call('HGET', keys[3], hash) or '', letter}
    for i, entry in ipairs(mail) do answer[5 + i] = entry end
    return answer
  end

  local answers = {}
  for i = 1, (#args - 3) / 3 do
    answers[i] = one(args[3 * i + 1], args[3 * i + 2], args[3 * i + 3], unpack(keys, 3 * i + 2, 3 * i + 4))
  end
  set_alarms(keys[2], noted)
  return answers
end

-- stay: KEYS alarms, dead, dead-index, dead-reasons, dead-audit, mailbox, lane, lock; ARGV sender, fence, letter's id, by
-- whom, outcome, and the letter as it shall be from now on (empty: as it is). Lets go of a lane that was claimed for a
-- letter; the letter stays, and the audit says why, if there is an outcome. Answers whom to wake: as accept, and -1 if the lane was lost, and
-- nothing has changed. Fence 0: the lane could not be claimed, and only the audit is written.
local function stay(keys, args)
  local alarms, dead, index, reasons, audit, mailbox, lane, lock_key = unpack(keys)
  local sender, fence, id, by, outcome, letter = unpack(args)
  local now = clock()
  local stored = redis.call('HGET', dead, id)
  if fence ~= '0' then
    local lock = read_lock(lock_key)
    if not lock or lock.fence ~= tonumber(fence) then return -1 end
    redis.call('DEL', lock_key)
  end
  if stored then
    if letter ~= '' and fence ~= '0' then bury(dead, index, reasons, now, id, letter) end
    if outcome ~= '' then write_audit(audit, id, read_letter(stored), by, outcome) end
  end
  if fence == '0' then return 0 end
  local head = redis.call('LINDEX', mailbox, 0)
  local _, deadline = read_lane(lane)
  local noted = new_alarms()
  note_alarm(noted, sender, head and now + LOOK_MS or deadline)
  set_alarms(alarms, noted)
  return ring_for(head)
end

-- revive: KEYS a Dramatiq queue's .XQ and .XQ.msgs, the queue and its .msgs, dead-audit; ARGV id, by whom, outcome, then
-- the message as it was read and, to queue it, its new id and itself under that. The message leaves the dead-letter queue;
-- without the last two, for good. Answers 1, or 0 if it was not there any more, or was another.
local function revive(keys, args)
  local xq, xq_messages, queue, messages, audit = unpack(keys)
  local id = args[1]
  if (redis.call('HGET', xq_messages, id) or '') ~= args[4] then return 0 end
  if redis.call('ZREM', xq, id) == 0 then return 0 end
  redis.call('HDEL', xq_messages, id)
  if args[5] then
    redis.call('HSET', messages, args[5], args[6])
    redis.call('RPUSH', queue, args[5])
  end
  write_audit(audit, 'd:' .. queue .. ':' .. id, {kind = 'dramatiq', reason = 'dramatiq'}, args[2], args[3])
  return 1
end

register('reopen', reopen, {'allow-oom'})
register('stay', stay, {'allow-oom'})
register('revive', revive, {'allow-oom'})
