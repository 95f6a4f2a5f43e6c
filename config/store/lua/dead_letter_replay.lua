-- Dead letters get a second chance: ours under the lane's own lock, stock Dramatiq's in their queue. Whatever comes of it,
-- the audit says so in the same call.

-- Claims lanes for their dead letters: the mail that waits is only looked at.
-- Answers, for each: 0 the letter is gone, 1 the lane is held, or its last holder never came back and has mail or a
-- deadline to answer for, or {fence, now, state, opt-outs, letter, mail entry ...}. The same owner asking again gets the
-- same.
local function claim_for_replay(keys, args)
  local now = clock()
  local owner, lease, last = args.owner, tonumber(args.lease_ms), tonumber(args.max_mail) - 1
  local noted = new_alarms()

  local function one(sender, hash, id, mailbox, lane, lock_key)
    local letter = redis.call('HGET', keys.dead_letters, id)
    if not letter then return 0 end
    local lock = read_lease(lock_key, now)
    local mine = lock and lock.owner == owner
    local mail = redis.call('LRANGE', mailbox, 0, last)
    local _, deadline, state = read_lane(lane)
    if lock and not mine then
      if lock.till > now then return 1 end
      if lock.attempts > 0 and (#mail > 0 or (deadline > 0 and deadline <= now)) then return 1 end
    end
    local fence = mine and lock.fence or new_fences(keys.fence, now, 1)
    if not mine then
      write_lock(lock_key, now, {fence = fence, till = now + lease, attempts = 0, since = now, owner = owner})
      note_alarm(noted, sender, now + lease)
    end
    local answer = {fence, now, state, redis.call('HGET', keys.optouts, hash) or '', letter}
    for i, entry in ipairs(mail) do answer[5 + i] = entry end
    return answer
  end

  local answers = {}
  for i = 1, #args.lanes do
    answers[i] = one(args.lanes[i].sender, args.lanes[i].number_hash, args.lanes[i].letter_id,
      keys.lanes[i].mailbox, keys.lanes[i].lane, keys.lanes[i].lane_lock)
  end
  set_alarms(keys.lane_alarms, noted)
  return answers
end

-- Lets go of a lane that was claimed for a letter; the letter stays, and the audit says why, if there is an outcome. Answers
-- whom to wake, as accept does; -1 if the lane was lost, and nothing has changed. Fence 0: the lane could not be claimed,
-- and only the audit is written.
local function release_kept(keys, args)
  local now = clock()
  local claimed = args.fence ~= '0'
  local stored = redis.call('HGET', keys.dead_letters, args.letter_id)
  if claimed then
    local lock = read_lock(keys.lane_lock)
    if not lock or lock.fence ~= tonumber(args.fence) then return -1 end
    redis.call('DEL', keys.lane_lock)
  end
  if stored then
    if args.letter ~= '' and claimed then
      add_letter(keys.dead_letters, keys.dead_letter_index, keys.dead_letter_reasons, now, args.letter_id, args.letter)
    end
    if args.outcome ~= '' and (claimed or not is_in_audit(keys.dead_letter_audit, args.call)) then
      write_audit(keys.dead_letter_audit, args.letter_id, read_letter(stored), args.by, args.outcome, args.call)
    end
  end
  if not claimed then return 0 end
  local wanted = queues_of(keys.mailbox)
  local _, deadline = read_lane(keys.lane)
  local noted = new_alarms()
  note_alarm(noted, args.sender, wanted > 0 and now + LOOK_MS or deadline)
  set_alarms(keys.lane_alarms, noted)
  return wanted
end

-- The message leaves the dead-letter queue: for good, or into its queue under a new id. Answers 1, or 0 if it was not there
-- any more, or was another.
local function resolve_dramatiq_letter(keys, args)
  local id = args.message_id
  if (redis.call('HGET', keys.dead_messages, id) or '') ~= args.message then return 0 end
  if redis.call('ZREM', keys.dead_queue, id) == 0 then return 0 end
  redis.call('HDEL', keys.dead_messages, id)
  if args.new_id ~= '' then
    redis.call('HSET', keys.messages, args.new_id, args.new_message)
    redis.call('RPUSH', keys.queue, args.new_id)
  end
  write_audit(keys.dead_letter_audit, 'd:' .. keys.queue .. ':' .. id, {kind = 'dramatiq', reason = 'dramatiq'}, args.by,
    args.outcome)
  return 1
end

register('claim_for_replay', claim_for_replay, {'allow-oom'})
register('release_kept', release_kept, {'allow-oom'})
register('resolve_dramatiq_letter', resolve_dramatiq_letter, {'allow-oom'})
