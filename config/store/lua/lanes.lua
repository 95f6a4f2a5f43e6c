-- A lane is claimed, and committed by its holder alone: all of what was decided, or nothing. Until somebody comes, its
-- alarm is there.

local MANY = 4000          -- what `unpack` takes at once; it fails at some 8000, when half of a commit is done
local MOST_RECORDS = 500   -- records in one entry of the event stream
local MOST_SMS = 10000     -- SMS that wait for one person: to withdraw them looks at all of them, and Redis does nothing else
local OUTBOX_FULL = {code = 'outbox_full', why = 'not queued: too many SMS wait for this number'}

-- The attempts at a lane until now, of which this is one more: the ms of those before, of the first of all, and the owner
-- with the ms of the others.
local function earlier_attempts(lock, now, owner)
  local later = string.match(lock.owner, ';(.*)$')
  local before = ms(lock.since) .. (later and ',' .. later or '')
  return before, lock.since, owner .. ';' .. (later and later .. ',' or '') .. ms(now)
end

-- Whether a mailbox's entry was accepted before `lost`, or before the clock was set back since.
local function is_old(entry, lost, now)
  local at = lost > 0 and entry ~= nil and tonumber(string.sub(entry, 2, 14))
  return at and (at < lost or at > now) or false
end

-- Answers, for each sender: 0 nothing to do, 1 held by another, 2 its head belongs to the other queue,
-- 3 suspect (an earlier holder never came back: claim it alone, it may be what killed it), or
-- {fence, attempts, now, state, opt-outs, ms of the attempts before, 1 if events were applied that the state does not
-- remember, 1 if what it is claimed for may have been applied already by a server that has lost it, entry ...}: at most
-- `max_mail` entries, as count_claimable says; none if only its deadline is due. Mail that may have been applied is claimed
-- without newer. Opt-outs are those of the list: a lane may not have heard of its own, as of a STOP while its state could not
-- be read.
-- The same owner asking again gets the same claim.
local function claim(keys, args)
  local now = clock()
  local lost = lost_before(keys.server, now)
  if not lost then return UNKNOWN_SERVER end
  local owner, kind, suspects = args.owner, args.mail_kind, args.take_suspects == '1'
  local lease, most = tonumber(args.lease_ms), tonumber(args.max_mail)
  local noted = new_alarms()
  local claimed = {}

  local function one(sender, opt_outs, mailbox, lane, lock_key, applied_events)
    local lock, nearer = read_lease(lock_key, now)
    local mine = lock and string.match(lock.owner, '^[^;]*') == owner
    if lock and lock.till > now and not mine then
      if nearer then note_alarm(noted, sender, lock.till) end
      return 1
    end
    local mail = redis.call('LRANGE', mailbox, 0, most - 1)
    local _, deadline, state = read_lane(lane)
    local claimable = count_claimable(mailbox, mail, kind, most)
    if #mail == 0 then
      if deadline == 0 or deadline > now then
        if lock then redis.call('DEL', lock_key) end
        note_alarm(noted, sender, deadline)
        return 0
      end
      if kind ~= 'R' then return 2 end
    elseif claimable == 0 then
      return 2
    end
    if lock and not mine and not suspects then return 3 end
    local attempts = mine and lock.attempts or (lock and lock.attempts or 0) + 1
    local before, since, attempted = '', now, owner
    if lock and not mine and lock.attempts > 0 then before, since, attempted = earlier_attempts(lock, now, owner) end
    local older_events = #mail > 0 and redis.call('EXISTS', applied_events) or 0
    local may_be_lost = is_old(mail[1], lost, now)
    local answer = {mine and lock.fence or 0, attempts, now, state, opt_outs or '', before, older_events,
      (may_be_lost or deadline > 0 and deadline < lost) and 1 or 0}
    for i = 1, claimable do
      if may_be_lost and not is_old(mail[i], lost, now) then break end
      answer[8 + i] = mail[i]
    end
    if not mine then
      claimed[#claimed + 1] = {answer = answer, lock = lock_key, since = since, owner = attempted}
      note_alarm(noted, sender, now + lease)
    end
    return answer
  end

  local hashes, answers = {}, {}
  for i = 1, #args.lanes do hashes[i] = args.lanes[i].number_hash end
  local opt_outs = redis.call('HMGET', keys.optouts, unpack(hashes)) -- in one go: this is done for every lane of every turn
  for i = 1, #args.lanes do
    answers[i] = one(args.lanes[i].sender, opt_outs[i],
      keys.lanes[i].mailbox, keys.lanes[i].lane, keys.lanes[i].lane_lock, keys.lanes[i].applied_events)
  end
  local fence = #claimed > 0 and new_fences(keys.fence, now, #claimed) - 1
  for i, each in ipairs(claimed) do
    each.answer[1] = fence + i
    write_lock(each.lock, now,
      {fence = fence + i, till = now + lease, attempts = each.answer[2], since = each.since, owner = each.owner})
  end
  set_alarms(keys.lane_alarms, noted)
  return answers
end

-- The session that an SMS belongs to, by its id ("<session>x<number>"); '' if it belongs to none, or cannot be read.
local function session_of(sms)
  local identity = sms[SMS.id]
  return type(identity) == 'string' and string.match(identity, '^(.*)x%d+$') or ''
end

-- The oldest SMS is withdrawn, and `next_one` has its place: what the sender rests for is void, and so is whether the
-- provider has it. But an answer under way may hold the next one too: that is not asked for before it has arrived.
local function void_rest(outbox_lock, now, next_one)
  local lock = read_outbox_lock(outbox_lock)
  if not lock or lock.state == STATE.done then return end
  if lock.state == STATE.entrusted and read_sms(next_one)[SMS.uncertain] then return end
  if lock.fence == 0 then
    redis.call('DEL', outbox_lock)
  else
    write_outbox_lock(outbox_lock, now, {fence = lock.fence, till = lock.till, attempts = 1, since = 0, state = STATE.gone})
  end
end

-- The outbox becomes these entries: in one go, as taking them out one by one would look through the whole list for each.
local function replace_outbox(outbox, entries)
  redis.call('DEL', outbox)
  for at = 1, #entries, MANY do redis.call('RPUSH', outbox, unpack(entries, at, math.min(at + MANY - 1, #entries))) end
end

-- An SMS that will not leave, and why.
local function because_of(why, sms)
  return {sms = sms, code = why.code, why = why.why}
end

-- Records that SMS will not leave, as Python encodes SmsNotSent: entries of one session each (workers/store/session_records.py).
local function record_unsent(events, now, sender, unsent)
  local sessions, of = {}, {}
  for _, each in ipairs(unsent) do
    local sms, session = each.sms, each.sms[SMS.session] or ''
    if not of[session] or #of[session] == MOST_RECORDS then
      of[session] = {}
      sessions[#sessions + 1] = of[session]
    end
    table.insert(of[session], {'unsent', now, sms[SMS.channel], session, sms[SMS.id], each.code, each.why})
  end
  for _, records in ipairs(sessions) do record(events, sender, cmsgpack.pack(records)) end
end

-- The SMS of these channels and of these sessions, name -> {code, why}, leave the outbox. Answers those that can be read,
-- each with why.
local function withdraw(now, outbox, outbox_lock, channels, sessions)
  local entries, kept, unsent = redis.call('LRANGE', outbox, 0, -1), {}, {}
  local of_sessions = next(sessions) ~= nil
  for _, entry in ipairs(entries) do
    local because = channels[string.match(entry, '^%Z*')]
    local sms = (because or of_sessions) and read_sms(entry)
    because = because or of_sessions and sessions[session_of(sms)]
    if not because then
      kept[#kept + 1] = entry
    elseif is_readable(sms) then
      unsent[#unsent + 1] = because_of(because, sms)
    end
  end
  if #kept == #entries then return unsent end
  replace_outbox(outbox, kept)
  if kept[1] ~= entries[1] then void_rest(outbox_lock, now, kept[1]) end
  return unsent
end

-- Where a session is found by its id. Its invitation may have to be known for longer than the session itself.
local function index_session(key, value, until_ms)
  if redis.call('SET', key, value, 'NX', 'PXAT', until_ms) then return end
  local known_until = redis.call('PEXPIRETIME', key)
  redis.call('SET', key, value, 'PXAT', ms(math.max(known_until, tonumber(until_ms))))
end

local function is_due(deadline, now)
  return deadline > 0 and deadline <= now
end

-- For each lane, all or nothing: the state, the SMS, the records and the alarm, if `fence` is still who may commit and
-- the letters that it resolves are still there.
-- Answers, for each, {1, whom to wake for what mail is left, 1 if the outbox wants a delivery worker}, both 0 if it has rung
-- itself, or {0} if another has claimed the lane since, or a server has lost its tail: nothing has changed. A lane that cannot be
-- committed answers an error and harms no other; its lease's alarm remains. That an SMS was withdrawn is recorded here too: who
-- would do it later may die before. So is that one finds its outbox full, and is not queued.
local function commit(keys, args)
  local events, optouts, outbox_alarms = keys.events, keys.optouts, keys.outbox_alarms
  local dead, index, reasons = keys.dead_letters, keys.dead_letter_index, keys.dead_letter_reasons
  local audit = keys.dead_letter_audit
  local now, keep_applied_ms = clock(), tonumber(args.keep_applied_ms)
  local lost = lost_before(keys.server, now)
  if not lost then return UNKNOWN_SERVER end
  local void = last_void_fence(keys.server, lost)
  local noted, spoken = new_alarms(), new_alarms()
  local changes = new_changes()
  local nothing = {}

  local function by_name(withdrawals)
    local found = {}
    for _, each in ipairs(withdrawals) do found[each.name] = each end
    return found
  end

  local function one(new)
    local sender, fence, rare = new.sender, tonumber(new.fence), new.rare
    local lock = read_lock(new.lane_lock)
    if not lock or lock.fence ~= fence then
      if read_lane(new.lane) ~= fence then return {0} end
      return {1, queues_of(new.mailbox), redis.call('EXISTS', new.outbox)}
    end
    if fence <= void then return {0} end -- claimed on a server that may have had the commit, and have lost it
    local resolutions = rare and rare.resolutions or nothing
    for i = 1, #resolutions do
      if redis.call('HEXISTS', dead, resolutions[i].id) == 0 then return {0} end
    end
    local deadline = tonumber(new.deadline)
    if not deadline then
      local _, was = read_lane(new.lane)
      deadline = was
    end
    local opt_outs = rare and rare.number_hash ~= '' and read_opt_outs(optouts, rare.number_hash)
    if new.applied ~= '0' then redis.call('LTRIM', new.mailbox, new.applied, -1) end
    local blob = ms(fence) .. ' ' .. ms(deadline) .. ' ' .. new.state
    if new.keep_until == '0' then
      redis.call('SET', new.lane, blob)
    elseif new.state == '' then -- nobody of whom anything is known: no more than the fence, for a reply that is lost
      redis.call('SET', new.lane, blob, 'PX', ms(FORGET_MS))
    elseif new.keep_until == '-' then
      redis.call('SET', new.lane, blob, 'KEEPTTL')
    else
      redis.call('SET', new.lane, blob, 'PXAT', new.keep_until)
    end
    redis.call('DEL', new.lane_lock)
    for i = new.records_from, new.records_to do record(events, sender, args[i]) end
    if opt_outs then
      for _, each in ipairs(rare.opt_outs) do note_opt_out(opt_outs, each.channel, each.at_ms, each.source) end
      write_opt_outs(optouts, rare.number_hash, opt_outs)
    end
    if rare then remember_events(rare.applied_events, rare.displaced_events, now, keep_applied_ms) end
    for _, each in ipairs(rare and rare.sessions or nothing) do
      index_session(each.session, each.location, each.until_ms)
    end

    if rare and (#rare.silenced_channels > 0 or #rare.withdrawn_sessions > 0) then
      local unsent = withdraw(now, new.outbox, new.outbox_lock,
        by_name(rare.silenced_channels), by_name(rare.withdrawn_sessions))
      record_unsent(events, now, sender, unsent)
    end
    local speak = 0
    local from, to = new.outbox_entries_from, new.outbox_entries_to
    if from <= to then
      local waiting
      for at = from, to, MANY do
        waiting = redis.call('RPUSH', new.outbox, unpack(args, at, math.min(at + MANY - 1, to)))
      end
      if waiting > MOST_SMS then
        local unqueued, unsent = math.min(waiting - MOST_SMS, to - from + 1), {}
        for i = to - unqueued + 1, to do unsent[#unsent + 1] = because_of(OUTBOX_FULL, read_sms(args[i])) end
        redis.call('LTRIM', new.outbox, 0, -(unqueued + 1))
        record_unsent(events, now, sender, unsent)
      end
      if waiting == to - from + 1 or not redis.call('ZSCORE', outbox_alarms, sender) then
        speak = 1
        note_alarm(spoken, sender, now + LOOK_MS)
      end
    end
    for _, each in ipairs(rare and rare.dead_letters or nothing) do
      if add_letter(dead, index, reasons, now, each.id, each.content) then
        record_letter(events, sender, now, each.id, each.content)
      end
    end
    for _, each in ipairs(resolutions) do
      remove_letter(dead, index, reasons, audit, each.id, each.by, each.outcome)
    end
    for _, each in ipairs(rare and rare.session_states or nothing) do
      change_state(changes, keys.campaign_sessions, each.id, each.state)
    end

    local wanted = queues_of(new.mailbox)
    note_alarm(noted, sender, (wanted > 0 or is_due(deadline, now)) and now + LOOK_MS or deadline)
    return {1, wanted, speak}
  end

  local answers = {}
  for new in each_commit_lane(keys, args) do
    local done, answer = pcall(one, new)
    if not done then answer = error_answer(answer) end
    answers[#answers + 1] = answer
    if answer[1] == 1 then
      note_rings(args.bells_database, answer[2], new.sender)
      if answer[3] == 1 then note_ring(args.bells_database, BELL.outbound, new.sender) end
    end
  end
  set_alarms(keys.lane_alarms, noted)
  set_alarms(outbox_alarms, spoken)
  write_changes(keys.campaigns, now, changes)
  return answers, args.bells_database ~= '' and function()
    for _, answer in ipairs(answers) do
      if answer[1] == 1 then answer[2], answer[3] = 0, 0 end
    end
  end or nil
end

-- Answers the id of the last entry that it looked at (empty at the stream's end), then the records of each that is about
-- the sender.
local function read_sender_records(keys, args)
  local most = tonumber(args.max_entries)
  local entries = redis.call('XRANGE', keys.events, args.after_id, args.until_id, 'COUNT', most)
  local answer = {#entries == most and entries[most][1] or ''}
  for _, entry in ipairs(entries) do
    local to, records
    for i = 1, #entry[2], 2 do
      if entry[2][i] == 'to' then to = entry[2][i + 1] elseif entry[2][i] == 'e' then records = entry[2][i + 1] end
    end
    if to == args.sender then answer[#answer + 1] = records end
  end
  return answer
end

-- Takes up to `most` senders that are due by `now`, which are due again `later`. Answers them, those of them that had been taken
-- before, and the score of the next alarm, or nil.
local function take_due(alarms, now, most, later)
  local senders, unanswered = {}, {}
  local first = redis.call('ZRANGE', alarms, 0, 0, 'WITHSCORES')[2]
  if not first or tonumber(first) > now then return senders, unanswered, first end
  local scored = redis.call('ZRANGEBYSCORE', alarms, '-inf', ms(now), 'WITHSCORES', 'LIMIT', 0, most)
  for i = 1, #scored, 2 do
    local sender = scored[i]
    senders[#senders + 1] = sender
    if string.find(scored[i + 1], '.', 1, true) then unanswered[#unanswered + 1] = sender end
    redis.call('ZADD', alarms, later, sender)
  end
  return senders, unanswered, redis.call('ZRANGE', alarms, 0, 0, 'WITHSCORES')[2]
end

-- Answers, for each shard, {lanes due, outboxes due, ms until the next alarm or -1, those of the lanes to which nobody came when
-- they were due before, now, 1 if nobody may work on this server yet}. What is due is put off, so that two clocks do not wake for
-- the same lane, and is woken for once more then if nobody has come.
local function take_due_alarms(keys, args)
  local now, answers = clock(), {}
  local most, later = args.max_senders, ms(now + tonumber(args.repeat_ms)) .. '.5'
  for i = 1, #keys.shards do
    local lost = lost_before(keys.shards[i].server, now) -- a newcomer is noted soon, or what rested beyond its coming would not be known to have
    local lanes, unanswered, next_lane = take_due(keys.shards[i].lane_alarms, now, most, later)
    local outboxes, _, next_outbox = take_due(keys.shards[i].outbox_alarms, now, most, later)
    local first = math.min(tonumber(next_lane or math.huge), tonumber(next_outbox or math.huge))
    local nearest = first == math.huge and -1 or math.max(0, first - now)
    answers[i] = {lanes, outboxes, nearest, unanswered, now, lost and 0 or 1}
  end
  return answers
end

-- Answers how many were not rung for already.
local function wake(keys, args)
  local senders = {}
  for i = 1, #args.senders do senders[i] = args.senders[i] end
  return ring_bell(keys.wakeup_queue, senders)
end

register('claim', claim, {'allow-oom'})
register('commit', commit, {'allow-oom'})
register('read_sender_records', read_sender_records, {'allow-oom'})
register('take_due_alarms', take_due_alarms, {'allow-oom'})
register('wake', wake, {'allow-oom'})
