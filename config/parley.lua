#!lua name=@library@
-- What must happen to a lane at once, or not at all.
--
-- Laws. Every key that a function touches is in KEYS, and all of them share one hash slot. Time is the server's.
-- Every function may be called twice with the same arguments (a client retries a call whose reply was lost) and
-- changes nothing the second time. `@library@` becomes a name that no other text of this file has (keyspace.py), so the
-- functions of two releases live side by side while one follows the other. Values are bytes that only Python reads, behind small headers that are read here:
--
--   mail entry    kind .. 13 digits of ms .. event          kind: 'S' a START, 'R' anything else
--   lane          fence ' ' deadline ' ' state              deadline: ms at which the engine wants to be called, or 0
--   lock          fence ' ' until ' ' attempts ' ' since ' ' owner
--                 kept beyond `until`, so that a death is counted; since: ms of the first attempt
--   outbox entry  channel '\0' sms
--   outbox-lock   as lock; fence 0: nobody sends, the sender rests until `until` (pause or backoff); its owner is then
--                 the verdict of the last try, and a '?' after it if the provider may have the oldest SMS; or who keeps
--                 it at rest: 'reserved <token>' for the answer of a webhook, 'entrusted <token>?' once it holds the SMS
--   tickets       what a provider that does not know repeats called the SMS that it accepted, newest first
--   optouts       hash of a sender -> JSON, channel -> [ms, source]: who has opted out, without their numbers
--   session       ms from which on its records are found ' ' sender; empty: forgotten on purpose
--   held          invitation -> ms before which it is not released; held-mail: invitation -> sender '\0' 13 digits of ms event
--   reference     fingerprint of what was invited under it, first come; empty: forgotten on purpose
--   alarms        sender -> ms; an index that claim, commit, take and settle keep true, and tick reads

local LOOK_MS = 2000      -- mail that nobody has looked at by then is rung again
local BOOKED = 'booked'   -- owner of an outbox-lock at rest whose SMS has its permit
local FORGET_MS = 604800000 -- a lock that nobody came back to
local FRESH_MS = 1000      -- a booked permit not used by then is void, or many would be used at once
local GONE = 'gone'       -- owner of an outbox-lock whose SMS was withdrawn while it was tried
local MANY = 4000          -- what `unpack` takes at once; it fails at some 8000, when half of a commit is done
local TICKETS = 50        -- tickets of a sender that are remembered
local TICKETS_MS = 172800000 -- and for how long: twice as long as an SMS may be looked up

local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function ms(n)
  return string.format('%.0f', n)
end

local function ring_for(entry)
  if not entry then return 0 end
  if string.sub(entry, 1, 1) == 'S' then return 1 end
  return 2
end

local function read_lock(key)
  local lock = redis.call('GET', key)
  if not lock then return nil end
  local fence, till, attempts, since, owner = string.match(lock, '^(%d+) (%d+) (%d+) (%d+) (.*)$')
  if not fence then return nil end
  return {
    fence = tonumber(fence), till = tonumber(till), attempts = tonumber(attempts), since = tonumber(since),
    owner = owner,
  }
end

local function write_lock(key, now, lock)
  local value = table.concat({ms(lock.fence), ms(lock.till), lock.attempts, ms(lock.since), lock.owner}, ' ')
  redis.call('SET', key, value, 'PX', ms(lock.till - now + FORGET_MS))
end

local function read_lane(key)
  local lane = redis.call('GET', key)
  if not lane then return 0, 0, '' end
  local fence, deadline, at = string.match(lane, '^(%d+) (%d+) ()')
  if not fence then return 0, 0, lane end -- damaged: whoever decodes the state will say so
  return tonumber(fence), tonumber(deadline), string.sub(lane, at)
end

-- Alarms to set or clear, gathered so that many cost one command. `at` 0 clears.
local function new_alarms()
  return {set = {}, clear = {}}
end

local function note_alarm(noted, sender, at)
  if at > 0 then
    local n = #noted.set
    noted.set[n + 1], noted.set[n + 2] = ms(at), sender
  else
    noted.clear[#noted.clear + 1] = sender
  end
end

local function set_alarms(alarms, noted)
  if #noted.set > 0 then redis.call('ZADD', alarms, unpack(noted.set)) end
  if #noted.clear > 0 then redis.call('ZREM', alarms, unpack(noted.clear)) end
end

local function record(events, now, keep_ms, sender, records)
  redis.call('XADD', events, 'MINID', '~', ms(math.max(0, now - tonumber(keep_ms))), '*', 'to', sender, 'e', records)
end

local function bury(dead, index, now, id, letter)
  redis.call('HSET', dead, id, letter)
  redis.call('ZADD', index, 'NX', ms(now), id)
end

-- accept: KEYS alarms, then a mailbox for each event; ARGV (sender, kind .. event) for each event.
-- Answers, for each event, whom to wake: 0 nobody (mail was waiting already), 1 `starts`, 2 `replies`.
-- Called twice, it delivers twice: the lane remembers an event's id when it is applied, so the copy is dropped there.
local function accept(keys, args)
  local now = clock()
  local stamp = ms(now)
  local rings = {}
  for i = 2, #keys do
    local sender, event = args[2 * i - 3], args[2 * i - 2]
    local entry = string.sub(event, 1, 1) .. stamp .. string.sub(event, 2)
    if redis.call('RPUSH', keys[i], entry) == 1 then
      redis.call('ZADD', keys[1], 'LT', ms(now + LOOK_MS), sender)
      rings[i - 1] = ring_for(entry)
    else
      rings[i - 1] = 0
    end
  end
  return rings
end

-- claim: KEYS fence, alarms, optouts, then (mailbox, lane, lock) for each sender;
-- ARGV owner, kind, limit, lease ms, 1 to take suspects too or 0, then (sender, hash) each.
-- Answers, for each sender: 0 nothing to do, 1 held by another, 2 its head belongs to the other queue,
-- 3 suspect (an earlier holder never came back: claim it alone, it may be what killed it), or
-- {fence, attempts, now, state, opt-outs, entry ...}: at most `limit` entries of `kind`, none if only its deadline is
-- due. The list of opt-outs is asked only if there is no state.
-- The same owner asking again gets the same claim.
local function claim(keys, args)
  local now = clock()
  local owner, kind, limit, lease, suspects = args[1], args[2], tonumber(args[3]), tonumber(args[4]), args[5] == '1'
  local noted = new_alarms()
  local claimed = {}

  local function one(sender, hash, mailbox, lane, lock_key)
    local lock = read_lock(lock_key)
    local mine = lock and lock.owner == owner
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
    local answer = {mine and lock.fence or 0, attempts, now, state, opt_outs}
    for i = 1, #mail do
      if string.sub(mail[i], 1, 1) ~= kind then break end
      answer[5 + i] = mail[i]
    end
    if not mine then
      claimed[#claimed + 1] = {answer = answer, lock = lock_key}
      note_alarm(noted, sender, now + lease)
    end
    return answer
  end

  local answers = {}
  for i = 1, (#args - 5) / 2 do
    answers[i] = one(args[2 * i + 4], args[2 * i + 5], unpack(keys, 3 * i + 1, 3 * i + 3))
  end
  local fence = #claimed > 0 and redis.call('INCRBY', keys[1], #claimed) - #claimed or 0
  for i, each in ipairs(claimed) do
    each.answer[1] = fence + i
    write_lock(each.lock, now,
      {fence = fence + i, till = now + lease, attempts = each.answer[2], since = 0, owner = owner})
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

-- A person's opt-outs. Raises if they cannot be read: they are not taken for none.
local function read_opt_outs(optouts, hash)
  local list = redis.call('HGET', optouts, hash)
  return list and cjson.decode(list) or {}
end

-- Take (channel, ms, source) triples of `args` into the list; ms 0: opted in again. An entry of the same ms stays.
local function note_opt_outs(list, args, from, to)
  for i = from, to, 3 do
    local channel, at = args[i], tonumber(args[i + 1])
    if at == 0 then
      list[channel] = nil
    elseif not list[channel] or list[channel][1] ~= at then
      list[channel] = {at, args[i + 2]}
    end
  end
end

local function write_opt_outs(optouts, hash, list)
  if next(list) then
    redis.call('HSET', optouts, hash, cjson.encode(list))
  else
    redis.call('HDEL', optouts, hash)
  end
end

-- Where a session is found by its id. Its invitation may have to be known for longer than the session itself.
local function index_session(key, value, until_ms)
  if redis.call('SET', key, value, 'NX', 'PXAT', until_ms) then return end
  local known_until = redis.call('PEXPIRETIME', key)
  redis.call('SET', key, value, 'PXAT', ms(math.max(known_until, tonumber(until_ms))))
end

-- commit: KEYS alarms, outbox-alarms, events, dead, dead-index, optouts, then for each lane mailbox, lane, lock, outbox,
-- outbox-lock and its sessions; ARGV ms to keep events, then for each lane: sender, fence, entries applied, deadline
-- ('-': as it was), keep until (0: for ever, '-': as it was), state, counted lists of records and of outbox entries, and
-- 0 if that is all, or 1 and what most commits have nothing of, in counted lists: (value, expires at ms) of sessions;
-- silenced channels; withdrawn sessions; (id, dead letter) pairs; the sender's hash (empty without opt-outs) and
-- (channel, ms, source) of opt-outs, ms 0 for in again.
-- For each lane, all or nothing: the state, the SMS, the records and the alarm, if `fence` is still who may commit.
-- Answers, for each, {1, whom to wake for what mail is left, 1 if the outbox wants a delivery worker,
-- withdrawn entry ...}, or {0} if another has claimed the lane since: nothing has changed. A lane that cannot be
-- committed answers an error and harms no other; its lease's alarm rings.
local function commit(keys, args)
  local alarms, outbox_alarms, events, dead, index, optouts = unpack(keys, 1, 6)
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
    for i = new.dead_from or 1, new.dead_to or 0, 2 do bury(dead, index, now, args[i], args[i + 1]) end

    local head = redis.call('LINDEX', mailbox, 0)
    note_alarm(noted, sender, head and now + LOOK_MS or deadline)
    local answer = {1, ring_for(head), speak}
    for i, entry in ipairs(withdrawn) do answer[3 + i] = entry end -- there may be more than MANY
    return answer
  end

  local answers = {}
  local k = 7
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

-- take: KEYS fence, outbox-alarms, then (outbox, outbox-lock) for each sender; ARGV owner, lease ms, a sender each.
-- Answers, for each sender, 0 (nothing to send now) or {fence, now, attempts so far, ms of the first of them (0: none),
-- how it was left, entry}: the oldest SMS, which nobody else will try until the lease ends. How it was left is a sum:
-- 1 the provider may have it (it was left so, or in the middle of a try whose worker never came back), 2 with a permit
-- booked for now.
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
    if mine then return {lock.fence, now, lock.attempts - 1, lock.since, lock.owner == owner and 0 or 1, entry} end
    if lock and lock.till > now then
      redis.call('ZADD', keys[2], ms(lock.till), sender)
      return 0
    end
    local attempts, since, left = 0, 0, 0
    if lock then
      local verdict, unsure = string.match(lock.owner, '^(.-)(%??)$')
      if verdict == GONE then
        attempts, since = 0, 0
      else
        attempts, since = lock.attempts, lock.since
        if lock.fence > 0 or unsure ~= '' then left = 1 end
        if lock.fence == 0 and verdict == BOOKED and now - lock.till <= FRESH_MS then left = left + 2 end
      end
    end
    local fence = redis.call('INCR', keys[1])
    write_lock(lock_key, now, {
      fence = fence, till = now + lease, attempts = attempts + 1, since = since > 0 and since or now,
      owner = left % 2 == 1 and owner .. '?' or owner,
    })
    redis.call('ZADD', keys[2], ms(now + lease), sender)
    return {fence, now, attempts, since, left, entry}
  end

  local answers = {}
  for i = 3, #args do
    local k = 2 * (i - 3) + 3
    answers[i - 2] = one(args[i], keys[k], keys[k + 1])
  end
  return answers
end

-- settle: KEYS outbox-alarms, events, dead, dead-index, outbox, outbox-lock, tickets, alarms, mailbox;
-- ARGV sender, fence, entry, verdict, rest ms, ms to keep events, records, dead letter's id, dead letter, '?' if the
-- provider may have the SMS that stays, its ticket (to be remembered), mail for the lane (kind .. event).
-- verdict: 'done' (accepted, or buried: the entry goes), 'again' (it stays, the try counts), 'untried' (it stays),
-- 'booked' (it stays, with a permit for when it has rested).
-- Then the sender rests for `rest ms`. Answers 1 if another SMS may be taken at once, 0 if not (or if the fence is old).
local function settle(keys, args)
  local outbox_alarms, events, dead, index, outbox, lock_key, tickets, alarms, mailbox = unpack(keys)
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
  end
  if attempts == 0 then since = 0 end
  if args[7] ~= '' then
    record(events, now, args[6], sender, args[7])
  end
  if args[8] ~= '' then bury(dead, index, now, args[8], args[9]) end
  if args[11] ~= '' then
    redis.call('LPUSH', tickets, args[11])
    redis.call('LTRIM', tickets, 0, TICKETS - 1)
    redis.call('PEXPIRE', tickets, ms(TICKETS_MS))
  end
  if args[12] ~= '' then accept({alarms, mailbox}, {sender, args[12]}) end

  local more = redis.call('EXISTS', outbox) == 1
  if rest > 0 or attempts > 0 or unsure ~= '' then
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

-- note: KEYS events, lane; ARGV sender, ms to keep events, records. Adds to the archive what no commit carries, unless
-- the person has been erased.
local function note(keys, args)
  if redis.call('EXISTS', keys[2]) == 0 then return 0 end
  record(keys[1], clock(), args[2], args[1], args[3])
  return 1
end

-- opt_out: KEYS optouts, alarms, then (mailbox, lane, lock, outbox) for each entry; ARGV for each entry sender (empty:
-- only the hash is known), hash, channel, ms (0: now), source, mail that says so (kind .. event). Answers, for each, 1 if
-- it is new, 0 if the list had it. A lane that is there gets the mail, and so does one that is being made.
local function opt_out(keys, args)
  local now = clock()
  local answers = {}
  for i = 1, #args, 6 do
    local sender, hash, channel, at, source, mail = unpack(args, i, i + 5)
    local k = 3 + (i - 1) / 6 * 4
    local list = read_opt_outs(keys[1], hash)
    local known = list[channel] ~= nil
    if not known then
      note_opt_outs(list, {channel, at == '0' and now or at, source}, 1, 3)
      write_opt_outs(keys[1], hash, list)
      if sender ~= '' and redis.call('EXISTS', unpack(keys, k, k + 3)) > 0 then
        accept({keys[2], keys[k]}, {sender, mail})
      end
    end
    answers[#answers + 1] = known and 0 or 1
  end
  return answers
end

-- opt_in: KEYS optouts, lane, lock; ARGV hash, lane as it was read, lane as it shall be, a channel each. The list
-- forgets these channels. Answers how many it had, or -1 if the lane has changed or is held: read it again.
local function opt_in(keys, args)
  local lock = read_lock(keys[3])
  if (lock and lock.till > clock()) or (redis.call('GET', keys[2]) or '') ~= args[2] then return -1 end
  if args[3] ~= args[2] then redis.call('SET', keys[2], args[3], 'KEEPTTL') end
  local list = read_opt_outs(keys[1], args[1])
  local known = 0
  for i = 4, #args do
    if list[args[i]] then known = known + 1 end
    list[args[i]] = nil
  end
  write_opt_outs(keys[1], args[1], list)
  return known
end

-- erase: KEYS optouts, alarms, outbox-alarms, then mailbox, lane, outbox and the sender's other keys; ARGV sender, hash,
-- the mail and the lane that were read, then (channel, ms, source) of opt-outs in them, which are kept. Whoever holds the
-- lane or an SMS can neither commit nor settle after that. Answers {ms, mail, lanes, SMS, other keys, alarms} removed, or
-- {} if the mail or the lane has changed: read them again.
local function erase(keys, args)
  local mailbox, lane, outbox = unpack(keys, 4, 6)
  if table.concat(redis.call('LRANGE', mailbox, 0, -1)) ~= args[3] then return {} end
  if (redis.call('GET', lane) or '') ~= args[4] then return {} end
  local list = read_opt_outs(keys[1], args[2])
  note_opt_outs(list, args, 5, #args)
  write_opt_outs(keys[1], args[2], list)
  local removed = {clock(), redis.call('LLEN', mailbox), redis.call('DEL', lane), redis.call('LLEN', outbox)}
  redis.call('DEL', mailbox, outbox)
  removed[5] = redis.call('DEL', unpack(keys, 7))
  removed[6] = redis.call('ZREM', keys[2], args[1]) + redis.call('ZREM', keys[3], args[1])
  return removed
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

-- A bucket is one time: the moment at which it would be full again (GCRA).
local function read_bucket(key, now)
  return math.max(now, tonumber(redis.call('GET', key) or '0'))
end

local function write_bucket(key, now, full_at)
  redis.call('SET', key, string.format('%.3f', full_at), 'PX', ms(math.ceil(full_at - now) + 1000))
end

-- grant: KEYS bucket; ARGV permits a second, burst, wanted. Answers how many of them are there now, and takes those.
-- Called twice it takes twice, as book does: the exceptions to the law above, and on the safe side.
local function grant(keys, args)
  local now = clock()
  local each, burst, wanted = 1000 / tonumber(args[1]), tonumber(args[2]), tonumber(args[3])
  local full_at = read_bucket(keys[1], now)
  local granted = math.max(0, math.min(wanted, math.floor(burst - (full_at - now) / each + 1e-9)))
  if granted > 0 then write_bucket(keys[1], now, full_at + granted * each) end
  return granted
end

-- book: KEYS bucket; ARGV permits a second, burst, wanted. Takes all of them, from the future if need be.
-- Answers, for each, in how many ms it may be used. So a long queue costs each of its members two looks, not one
-- for every permit that goes to another.
local function book(keys, args)
  local now = clock()
  local each, burst, wanted = 1000 / tonumber(args[1]), tonumber(args[2]), tonumber(args[3])
  local full_at = read_bucket(keys[1], now)
  local waits = {}
  for i = 1, wanted do
    full_at = full_at + each
    waits[i] = math.max(0, math.ceil(full_at - now - burst * each - 1e-6))
  end
  write_bucket(keys[1], now, full_at)
  return waits
end

-- refer: KEYS a reference each; ARGV (fingerprint, until ms) each. Answers, for each, 1 if nothing else was ever accepted
-- under this reference, 0 if an invitation of another content was, -1 if what was is forgotten on purpose.
local function refer(keys, args)
  local same = {}
  for i = 1, #keys do
    local fingerprint, until_ms = args[2 * i - 1], args[2 * i]
    local first = redis.call('SET', keys[i], fingerprint, 'NX', 'PXAT', until_ms)
    local known = first and fingerprint or redis.call('GET', keys[i])
    same[i] = known == '' and -1 or known == fingerprint and 1 or 0
  end
  return same
end

-- hold: KEYS held-mail, then (held, session) for each invitation; ARGV (id, not before ms, until ms, sender, event) each.
-- Answers, for each, 1 if it is held from now on, 0 if it was accepted before, whatever has become of it.
local function hold(keys, args)
  local now = clock()
  local new = {}
  for i = 1, (#keys - 1) / 2 do
    local id, not_before, until_ms, sender, event = unpack(args, 5 * i - 4, 5 * i)
    local held, session = keys[2 * i], keys[2 * i + 1]
    new[i] = redis.call('SET', session, ms(now) .. ' ' .. sender, 'NX', 'PXAT', until_ms) and 1 or 0
    if new[i] == 1 then
      redis.call('HSET', keys[1], id, sender .. '\0' .. ms(now) .. event)
      redis.call('ZADD', held, not_before, id)
    end
  end
  return new
end

-- due: KEYS a held each. Answers now, then for each how many are held, and how many of them may be released by now.
local function due(keys)
  local now = clock()
  local answer = {now}
  for _, held in ipairs(keys) do
    answer[#answer + 1] = redis.call('ZCARD', held)
    answer[#answer + 1] = redis.call('ZCOUNT', held, '-inf', ms(now))
  end
  return answer
end

-- oldest: KEYS held, held-mail; ARGV most. Answers now and (id, mail) of those that may be released by now. An
-- id without mail is of no use, and goes.
local function oldest(keys, args)
  local now = clock()
  local found = {now}
  for _, id in ipairs(redis.call('ZRANGE', keys[1], '-inf', ms(now), 'BYSCORE', 'LIMIT', 0, args[1])) do
    local mail = redis.call('HGET', keys[2], id)
    if mail then
      found[#found + 1] = id
      found[#found + 1] = mail
    else
      redis.call('ZREM', keys[1], id)
    end
  end
  return found
end

-- release: KEYS alarms, held, held-mail, then a mailbox for each invitation; ARGV (id, sender) each.
-- Each is mail from now on, for the worker of STARTs, if it was held until now. Answers, for each, whom to wake: as
-- accept, and -1 if it was not held any more.
local function release(keys, args)
  local now = clock()
  local rings = {}
  for i = 4, #keys do
    local id, sender = args[2 * i - 7], args[2 * i - 6]
    local mail = redis.call('HGET', keys[3], id)
    redis.call('ZREM', keys[2], id)
    if mail then
      redis.call('HDEL', keys[3], id)
      local entry = 'S' .. ms(now) .. string.sub(mail, string.find(mail, '%z') + 14)
      if redis.call('RPUSH', keys[i], entry) == 1 then
        redis.call('ZADD', keys[1], 'LT', ms(now + LOOK_MS), sender)
        rings[i - 3] = ring_for(entry)
      else
        rings[i - 3] = 0
      end
    else
      rings[i - 3] = -1
    end
  end
  return rings
end

-- unhold: KEYS held, held-mail, session, events; ARGV id, sender, ms to keep events, records.
-- The invitation is held no more, and the records say why; without records, it is forgotten instead. Answers 1 if it
-- was held.
local function unhold(keys, args)
  local held, held_mail, session, events = unpack(keys)
  local id, sender, keep_ms, records = unpack(args)
  redis.call('HDEL', held_mail, id)
  if redis.call('ZREM', held, id) == 0 then return 0 end
  if records == '' then
    redis.call('SET', session, '', 'XX', 'KEEPTTL')
  else
    local now = clock()
    redis.call('SET', session, ms(now) .. ' ' .. sender, 'XX', 'KEEPTTL')
    record(events, now, keep_ms, sender, records)
  end
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

local function register(name, callback, flags)
  redis.register_function{function_name = '@library@_' .. name, callback = callback, flags = flags}
end

-- Only what takes in more is refused when the memory is full; the rest is what empties it.
register('accept', accept, {})
register('claim', claim, {'allow-oom'})
register('commit', commit, {'allow-oom'})
register('take', take, {'allow-oom'})
register('settle', settle, {'allow-oom'})
register('note', note, {'allow-oom'})
register('opt_out', opt_out, {'allow-oom'})
register('opt_in', opt_in, {'allow-oom'})
register('erase', erase, {'allow-oom'})
register('tick', tick, {'allow-oom'})
register('ring', ring, {'allow-oom'})
register('grant', grant, {'allow-oom'})
register('book', book, {'allow-oom'})
register('refer', refer, {})
register('hold', hold, {})
register('due', due, {'allow-oom'})
register('oldest', oldest, {'allow-oom'})
register('release', release, {'allow-oom'})
register('unhold', unhold, {'allow-oom'})
register('trace', trace, {'allow-oom'})
register('reserve', reserve, {'allow-oom'})
register('overhear', overhear, {'allow-oom'})
register('entrust', entrust, {'allow-oom'})
register('confirm', confirm, {'allow-oom'})
register('unreserve', unreserve, {'allow-oom'})
