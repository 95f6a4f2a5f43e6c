-- A lane is claimed and committed by its holder, and rung for until somebody comes.

local MANY = 4000          -- what `unpack` takes at once; it fails at some 8000, when half of a commit is done

-- The attempts at a lane until now, of which this is one more: the ms of those before, of the first of all, and the owner
-- with the ms of the others.
local function earlier(lock, now, owner)
  local later = string.match(lock.owner, ';(.*)$')
  local before = ms(lock.since) .. (later and ',' .. later or '')
  return before, lock.since, owner .. ';' .. (later and later .. ',' or '') .. ms(now)
end

-- claim: KEYS fence, alarms, optouts, then (mailbox, lane, lock) for each sender;
-- ARGV owner, kind, limit, lease ms, 1 to take suspects too or 0, then (sender, hash) each.
-- Answers, for each sender: 0 nothing to do, 1 held by another, 2 its head belongs to the other queue,
-- 3 suspect (an earlier holder never came back: claim it alone, it may be what killed it), or
-- {fence, attempts, now, state, opt-outs, ms of the attempts before, entry ...}: at most `limit` entries of `kind`, none
-- if only its deadline is due. The list of opt-outs is asked only if there is no state.
-- The same owner asking again gets the same claim.
local function claim(keys, args)
  local now = clock()
  local owner, kind, limit, lease, suspects = args[1], args[2], tonumber(args[3]), tonumber(args[4]), args[5] == '1'
  local noted = new_alarms()
  local claimed = {}

  local function one(sender, hash, mailbox, lane, lock_key)
    local lock = read_lock(lock_key)
    local mine = lock and string.match(lock.owner, '^[^;]*') == owner
    if lock and lock.till > now and not mine then return 1 end
    local mail = redis.call('LRANGE', mailbox, 0, limit - 1)
    local _, deadline, state = read_lane(lane)
    if #mail == 0 then
      if deadline == 0 or deadline > now then
        if lock then redis.call('DEL', lock_key) end
        note_alarm(noted, sender, deadline)
        return 0
      end
      if kind ~= 'R' then return 2 end
    elseif string.sub(mail[1], 1, 1) ~= kind then
      return 2
    end
    if lock and not mine and not suspects then return 3 end
    local opt_outs = state == '' and redis.call('HGET', keys[3], hash) or ''
    local attempts = mine and lock.attempts or (lock and lock.attempts or 0) + 1
    local before, since, attempted = '', now, owner
    if lock and not mine and lock.attempts > 0 then before, since, attempted = earlier(lock, now, owner) end
    local answer = {mine and lock.fence or 0, attempts, now, state, opt_outs, before}
    for i = 1, #mail do
      if string.sub(mail[i], 1, 1) ~= kind then break end
      answer[6 + i] = mail[i]
    end
    if not mine then
      claimed[#claimed + 1] = {answer = answer, lock = lock_key, since = since, owner = attempted}
      note_alarm(noted, sender, now + lease)
    end
    return answer
  end

  local answers = {}
  for i = 1, (#args - 5) / 2 do
    answers[i] = one(args[2 * i + 4], args[2 * i + 5], unpack(keys, 3 * i + 1, 3 * i + 3))
  end
  local fence = #claimed > 0 and new_fences(keys[1], now, #claimed) - 1
  for i, each in ipairs(claimed) do
    each.answer[1] = fence + i
    write_lock(each.lock, now,
      {fence = fence + i, till = now + lease, attempts = each.answer[2], since = each.since, owner = each.owner})
  end
  set_alarms(keys[2], noted)
  return answers
end

-- An SMS of an outbox as its fields; none if it cannot be read.
local function read_sms(entry)
  local read, sms = pcall(cmsgpack.unpack, entry and string.match(entry, '^%Z*%z(.*)$') or '')
  return read and type(sms) == 'table' and sms or {}
end

-- The session that an SMS belongs to, by its id ("<session>x<number>"); nil if it belongs to none, or cannot be read.
local function session_of(entry)
  local identity = read_sms(entry)[1]
  return type(identity) == 'string' and string.match(identity, '^(.*)x%d+$') or nil
end

-- The oldest SMS is withdrawn, and `next_one` has its place: what the sender rests for is void, and so is whether the
-- provider has it. But an answer under way may hold the next one too: that is not asked for before it has arrived.
local function void(outbox_lock, now, next_one)
  local lock = read_lock(outbox_lock)
  if not lock or lock.owner == 'done' then return end
  if string.sub(lock.owner, 1, 10) == 'entrusted ' and read_sms(next_one)[7] then return end
  if lock.fence == 0 then
    redis.call('DEL', outbox_lock)
  else
    lock.attempts, lock.since, lock.owner = 1, 0, GONE
    write_lock(outbox_lock, now, lock)
  end
end

-- The SMS of these channels and of these sessions leave the outbox.
local function withdraw(now, outbox, outbox_lock, channels, sessions)
  local withdrawn = {}
  local oldest = false
  for i, entry in ipairs(redis.call('LRANGE', outbox, 0, -1)) do
    if channels[string.match(entry, '^%Z*')] or (next(sessions) and sessions[session_of(entry) or '']) then
      oldest = oldest or i == 1
      redis.call('LREM', outbox, 1, entry)
      withdrawn[#withdrawn + 1] = entry
    end
  end
  if oldest then void(outbox_lock, now, redis.call('LINDEX', outbox, 0)) end
  return withdrawn
end

-- Where a session is found by its id. Its invitation may have to be known for longer than the session itself.
local function index_session(key, value, until_ms)
  if redis.call('SET', key, value, 'NX', 'PXAT', until_ms) then return end
  local known_until = redis.call('PEXPIRETIME', key)
  redis.call('SET', key, value, 'PXAT', ms(math.max(known_until, tonumber(until_ms))))
end

-- commit: KEYS alarms, outbox-alarms, events, dead, dead-index, optouts, dead-reasons, dead-audit, then for each lane
-- mailbox, lane, lock, outbox, outbox-lock and its sessions; ARGV ms to keep events, then for each lane: sender, fence, entries applied, deadline
-- ('-': as it was), keep until (0: for ever, '-': as it was), state, counted lists of records and of outbox entries, and
-- 0 if that is all, or 1 and what most commits have nothing of, in counted lists: (value, expires at ms) of sessions;
-- silenced channels; withdrawn sessions; (id, dead letter) pairs; the sender's hash (empty without opt-outs) and
-- (channel, ms, source) of opt-outs, ms 0 for in again; (id, by whom, outcome) of the dead letters that it deals with.
-- For each lane, all or nothing: the state, the SMS, the records and the alarm, if `fence` is still who may commit and
-- the letters are still there.
-- Answers, for each, {1, whom to wake for what mail is left, 1 if the outbox wants a delivery worker,
-- withdrawn entry ...}, or {0} if another has claimed the lane since: nothing has changed. A lane that cannot be
-- committed answers an error and harms no other; its lease's alarm rings.
local function commit(keys, args)
  local alarms, outbox_alarms, events, dead, index, optouts, reasons, audit = unpack(keys, 1, 8)
  local now, keep_ms = clock(), args[1]
  local noted, spoken = new_alarms(), new_alarms()
  local at = 1

  local function word()
    at = at + 1
    return args[at]
  end

  local function words(width)
    local from = at + 2
    at = at + 1 + width * tonumber(args[at + 1])
    return from, at
  end

  local function read()
    local lane = {sender = word(), fence = tonumber(word()), applied = word(), deadline = word()}
    lane.keep_until, lane.state = word(), word()
    lane.records_from, lane.records_to = words(1)
    lane.outbox_from, lane.outbox_to = words(1)
    lane.opened_from, lane.opened_to = 1, 0
    lane.rare = word() == '1'
    if lane.rare then
      lane.opened_from, lane.opened_to = words(2)
      lane.silenced_from, lane.silenced_to = words(1)
      lane.sessions_from, lane.sessions_to = words(1)
      lane.dead_from, lane.dead_to = words(2)
      lane.hash = word()
      lane.opt_outs_from, lane.opt_outs_to = words(3)
      lane.dealt_from, lane.dealt_to = words(3)
    end
    return lane
  end

  local function set_of(from, to)
    local set = {}
    for i = from, to do set[args[i]] = true end
    return set
  end

  local function one(new, first, mailbox, lane, lock_key, outbox, outbox_lock)
    local sender, fence = new.sender, new.fence
    local lock = read_lock(lock_key)
    if not lock or lock.fence ~= fence then
      if read_lane(lane) ~= fence then return {0} end
      return {1, ring_for(redis.call('LINDEX', mailbox, 0)), redis.call('EXISTS', outbox)}
    end
    for i = new.dealt_from or 1, new.dealt_to or 0, 3 do
      if redis.call('HEXISTS', dead, args[i]) == 0 then return {0} end
    end
    local deadline = tonumber(new.deadline)
    if not deadline then
      local _, was = read_lane(lane)
      deadline = was
    end
    local opt_outs = new.rare and new.hash ~= '' and read_opt_outs(optouts, new.hash)
    if new.applied ~= '0' then redis.call('LTRIM', mailbox, new.applied, -1) end
    local blob = ms(fence) .. ' ' .. ms(deadline) .. ' ' .. new.state
    if new.keep_until == '0' then
      redis.call('SET', lane, blob)
    elseif new.state == '' then -- nobody of whom anything is known: no more than the fence, for a reply that is lost
      redis.call('SET', lane, blob, 'PX', ms(FORGET_MS))
    elseif new.keep_until == '-' then
      redis.call('SET', lane, blob, 'KEEPTTL')
    else
      redis.call('SET', lane, blob, 'PXAT', new.keep_until)
    end
    redis.call('DEL', lock_key)
    for i = new.records_from, new.records_to do record(events, now, keep_ms, sender, args[i]) end
    if opt_outs then
      note_opt_outs(opt_outs, args, new.opt_outs_from, new.opt_outs_to)
      write_opt_outs(optouts, new.hash, opt_outs)
    end
    for i = new.opened_from, new.opened_to, 2 do
      index_session(keys[first + 5 + (i - new.opened_from) / 2], args[i], args[i + 1])
    end

    local withdrawn = {}
    if new.rare and (new.silenced_from <= new.silenced_to or new.sessions_from <= new.sessions_to) then
      withdrawn = withdraw(now, outbox, outbox_lock, set_of(new.silenced_from, new.silenced_to),
        set_of(new.sessions_from, new.sessions_to))
    end
    local speak = 0
    if new.outbox_from <= new.outbox_to then
      local waiting
      for from = new.outbox_from, new.outbox_to, MANY do
        waiting = redis.call('RPUSH', outbox, unpack(args, from, math.min(from + MANY - 1, new.outbox_to)))
      end
      if waiting == new.outbox_to - new.outbox_from + 1 or not redis.call('ZSCORE', outbox_alarms, sender) then
        speak = 1
        note_alarm(spoken, sender, now + LOOK_MS)
      end
    end
    for i = new.dead_from or 1, new.dead_to or 0, 2 do bury(dead, index, reasons, now, args[i], args[i + 1]) end
    for i = new.dealt_from or 1, new.dealt_to or 0, 3 do
      exhume(dead, index, reasons, audit, args[i], args[i + 1], args[i + 2])
    end

    local head = redis.call('LINDEX', mailbox, 0)
    note_alarm(noted, sender, head and now + LOOK_MS or deadline)
    local answer = {1, ring_for(head), speak}
    for i, entry in ipairs(withdrawn) do answer[3 + i] = entry end -- there may be more than MANY
    return answer
  end

  local answers = {}
  local k = 9
  while k <= #keys do
    local new = read()
    local done, answer = pcall(one, new, k, unpack(keys, k, k + 4))
    if not done then answer = {err = type(answer) == 'table' and answer.err or 'ERR ' .. tostring(answer)} end
    answers[#answers + 1] = answer
    k = k + 5 + (new.opened_to - new.opened_from + 1) / 2
  end
  set_alarms(alarms, noted)
  set_alarms(outbox_alarms, spoken)
  return answers
end

-- note: KEYS events, lane; ARGV sender, ms to keep events, records. Adds to the archive what no commit carries, unless
-- the person has been erased.
local function note(keys, args)
  if redis.call('EXISTS', keys[2]) == 0 then return 0 end
  record(keys[1], clock(), args[2], args[1], args[3])
  return 1
end

-- trace: KEYS events; ARGV after, until, most, sender. Looks at so many entries of the stream, and answers the id of
-- the last of them (empty at the stream's end), then the records of each that is about the sender.
local function trace(keys, args)
  local most = tonumber(args[3])
  local entries = redis.call('XRANGE', keys[1], args[1], args[2], 'COUNT', most)
  local answer = {#entries == most and entries[most][1] or ''}
  for _, entry in ipairs(entries) do
    local to, records
    for i = 1, #entry[2], 2 do
      if entry[2][i] == 'to' then to = entry[2][i + 1] elseif entry[2][i] == 'e' then records = entry[2][i + 1] end
    end
    if to == args[4] then answer[#answer + 1] = records end
  end
  return answer
end

-- tick: KEYS alarms, outbox-alarms; ARGV most, again ms.
-- Answers {lanes due, outboxes due, ms until the next alarm or -1}. What is due is put off by `again ms`, so that two
-- clocks do not ring for the same lane, and is rung once more then if nobody has come.
local function tick(keys, args)
  local now = clock()
  local nearest = -1
  local function due(alarms)
    local senders = redis.call('ZRANGEBYSCORE', alarms, '-inf', ms(now), 'LIMIT', 0, args[1])
    for _, sender in ipairs(senders) do
      redis.call('ZADD', alarms, ms(now + tonumber(args[2])), sender)
    end
    local first = redis.call('ZRANGE', alarms, 0, 0, 'WITHSCORES')[2]
    if first then
      local wait = math.max(0, tonumber(first) - now)
      if nearest < 0 or wait < nearest then nearest = wait end
    end
    return senders
  end
  local lanes, outboxes = due(keys[1]), due(keys[2])
  return {lanes, outboxes, nearest}
end

-- ring: KEYS bell; ARGV a sender each. The bell is a set in the order of first ringing: a lane that is rung twice
-- before anyone comes is woken once. Answers how many were new.
local function ring(keys, args)
  local now = ms(clock())
  local new = 0
  for i = 1, #args do new = new + redis.call('ZADD', keys[1], 'NX', now, args[i]) end
  return new
end

register('claim', claim, {'allow-oom'})
register('commit', commit, {'allow-oom'})
register('note', note, {'allow-oom'})
register('trace', trace, {'allow-oom'})
register('tick', tick, {'allow-oom'})
register('ring', ring, {'allow-oom'})
