#!lua name=parley
-- What must happen to a lane at once, or not at all.
--
-- Laws. Every key that a function touches is in KEYS, and all of them share one hash slot. Time is the server's.
-- Every function may be called twice with the same arguments (a client retries a call whose reply was lost) and
-- changes nothing the second time. Values are bytes that only Python reads, behind small headers that are read here:
--
--   mail entry    kind .. 13 digits of ms .. event          kind: 'S' a START, 'R' anything else
--   lane          fence ' ' deadline ' ' state              deadline: ms at which the engine wants to be called, or 0
--   lock          fence ' ' until ' ' attempts ' ' since ' ' owner
--                 kept beyond `until`, so that a death is counted; since: ms of the first attempt
--   outbox entry  channel '\0' sms
--   outbox-lock   as lock; fence 0: nobody sends, the sender rests until `until` (pause or backoff)
--   alarms        sender -> ms; an index that claim, commit, take and settle keep true, and tick reads

local LOOK_MS = 2000      -- mail that nobody has looked at by then is rung again
local BOOKED = 'booked'   -- owner of an outbox-lock at rest whose SMS has its permit
local FORGET_MS = 604800000 -- a lock that nobody came back to
local FRESH_MS = 1000      -- a booked permit not used by then is void, or many would be used at once

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

-- claim: KEYS fence, alarms, then (mailbox, lane, lock) for each sender;
-- ARGV owner, kind, limit, lease ms, 1 to take suspects too or 0, then a sender each.
-- Answers, for each sender: 0 nothing to do, 1 held by another, 2 its head belongs to the other queue,
-- 3 suspect (an earlier holder never came back: claim it alone, it may be what killed it), or
-- {fence, attempts, now, state, entry ...}: at most `limit` entries of `kind`, none if only its deadline is due.
-- The same owner asking again gets the same claim.
local function claim(keys, args)
  local now = clock()
  local owner, kind, limit, lease, suspects = args[1], args[2], tonumber(args[3]), tonumber(args[4]), args[5] == '1'
  local noted = new_alarms()
  local claimed = {}

  local function one(sender, mailbox, lane, lock_key)
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
    local answer = {mine and lock.fence or 0, mine and lock.attempts or (lock and lock.attempts or 0) + 1, now, state}
    for i = 1, #mail do
      if string.sub(mail[i], 1, 1) ~= kind then break end
      answer[4 + i] = mail[i]
    end
    if not mine then
      claimed[#claimed + 1] = {answer = answer, lock = lock_key}
      note_alarm(noted, sender, now + lease)
    end
    return answer
  end

  local answers = {}
  for i = 6, #args do
    local k = 3 * (i - 6) + 3
    answers[i - 5] = one(args[i], keys[k], keys[k + 1], keys[k + 2])
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

-- The entries of these channels leave the outbox. If the oldest is among them, so does what it rests for.
local function withdraw(outbox, outbox_lock, channels)
  local withdrawn = {}
  for i, entry in ipairs(redis.call('LRANGE', outbox, 0, -1)) do
    if channels[string.match(entry, '^%Z*')] then
      if i == 1 then
        local lock = read_lock(outbox_lock)
        if lock and lock.fence == 0 and lock.owner ~= 'done' then redis.call('DEL', outbox_lock) end
      end
      redis.call('LREM', outbox, 1, entry)
      withdrawn[#withdrawn + 1] = entry
    end
  end
  return withdrawn
end

-- commit: KEYS alarms, outbox-alarms, events, dead, dead-index, then (mailbox, lane, lock, outbox, outbox-lock) for
-- each lane; ARGV ms to keep events, then for each lane: sender, fence, entries applied, deadline ('-': as it was),
-- keep until (0: for ever, '-': as it was), state, records, and counted lists: silenced channels; outbox entries;
-- (id, dead letter) pairs.
-- For each lane, all or nothing: the state, the SMS, the records and the alarm, if `fence` is still who may commit.
-- Answers, for each, {1, whom to wake for what mail is left, 1 if the outbox wants a delivery worker,
-- withdrawn entry ...}, or {0} if another has claimed the lane since: nothing has changed. A lane that cannot be
-- committed answers an error and harms no other; its lease's alarm rings.
local function commit(keys, args)
  local alarms, outbox_alarms, events, dead, index = unpack(keys, 1, 5)
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
    lane.keep_until, lane.state, lane.records = word(), word(), word()
    lane.silenced_from, lane.silenced_to = words(1)
    lane.outbox_from, lane.outbox_to = words(1)
    lane.dead_from, lane.dead_to = words(2)
    return lane
  end

  local function one(new, mailbox, lane, lock_key, outbox, outbox_lock)
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
    if new.records ~= '' then record(events, now, keep_ms, sender, new.records) end

    local withdrawn = {}
    if new.silenced_from <= new.silenced_to then
      local silenced = {}
      for i = new.silenced_from, new.silenced_to do silenced[args[i]] = true end
      withdrawn = withdraw(outbox, outbox_lock, silenced)
    end
    local speak = 0
    if new.outbox_from <= new.outbox_to then
      local waiting = redis.call('RPUSH', outbox, unpack(args, new.outbox_from, new.outbox_to))
      if waiting == new.outbox_to - new.outbox_from + 1 or not redis.call('ZSCORE', outbox_alarms, sender) then
        speak = 1
        note_alarm(spoken, sender, now + LOOK_MS)
      end
    end
    for i = new.dead_from, new.dead_to, 2 do bury(dead, index, now, args[i], args[i + 1]) end

    local head = redis.call('LINDEX', mailbox, 0)
    note_alarm(noted, sender, head and now + LOOK_MS or deadline)
    return {1, ring_for(head), speak, unpack(withdrawn)}
  end

  local answers = {}
  for k = 6, #keys, 5 do
    local done, answer = pcall(one, read(), keys[k], keys[k + 1], keys[k + 2], keys[k + 3], keys[k + 4])
    if not done then answer = {err = type(answer) == 'table' and answer.err or 'ERR ' .. tostring(answer)} end
    answers[#answers + 1] = answer
  end
  set_alarms(alarms, noted)
  set_alarms(outbox_alarms, spoken)
  return answers
end

-- take: KEYS fence, outbox-alarms, then (outbox, outbox-lock) for each sender; ARGV owner, lease ms, a sender each.
-- Answers, for each sender, 0 (nothing to send now) or {fence, now, attempts so far, ms of the first of them (0: none),
-- how it was left, entry}: the oldest SMS, which nobody else will try until the lease ends. It was left: 0 untouched or settled, 1 in the middle of
-- a try whose worker never came back, 2 with a permit booked for now.
local function take(keys, args)
  local now = clock()
  local owner, lease = args[1], tonumber(args[2])

  local function one(sender, outbox, lock_key)
    local lock = read_lock(lock_key)
    local mine = lock and lock.owner == owner
    local entry = redis.call('LINDEX', outbox, 0)
    if not entry then
      redis.call('ZREM', keys[2], sender)
      return 0
    end
    if mine then return {lock.fence, now, lock.attempts - 1, lock.since, 0, entry} end
    if lock and lock.till > now then
      redis.call('ZADD', keys[2], ms(lock.till), sender)
      return 0
    end
    local attempts, since, left = 0, 0, 0
    if lock then
      attempts, since = lock.attempts, lock.since
      if lock.fence > 0 then left = 1 elseif lock.owner == BOOKED and now - lock.till <= FRESH_MS then left = 2 end
    end
    local fence = redis.call('INCR', keys[1])
    write_lock(lock_key, now, {
      fence = fence, till = now + lease, attempts = attempts + 1, since = since > 0 and since or now, owner = owner,
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

-- settle: KEYS outbox-alarms, events, dead, dead-index, outbox, outbox-lock;
-- ARGV sender, fence, entry, verdict, rest ms, ms to keep events, records, dead letter's id, dead letter.
-- verdict: 'done' (accepted, or buried: the entry goes), 'again' (it stays, the try counts), 'untried' (it stays),
-- 'booked' (it stays, with a permit for when it has rested).
-- Then the sender rests for `rest ms`. Answers 1 if another SMS may be taken at once, 0 if not (or if the fence is old).
local function settle(keys, args)
  local outbox_alarms, events, dead, index, outbox, lock_key = unpack(keys)
  local sender, entry, verdict, rest = args[1], args[3], args[4], tonumber(args[5])
  local now = clock()
  local lock = read_lock(lock_key)
  if not lock or lock.fence ~= tonumber(args[2]) then return 0 end
  local attempts, since = lock.attempts, lock.since
  if verdict == 'done' then
    redis.call('LREM', outbox, 1, entry)
    attempts = 0
  elseif verdict ~= 'again' then
    attempts = attempts - 1
  end
  if attempts == 0 then since = 0 end
  if args[7] ~= '' then
    record(events, now, args[6], sender, args[7])
  end
  if args[8] ~= '' then bury(dead, index, now, args[8], args[9]) end

  local more = redis.call('EXISTS', outbox) == 1
  if rest > 0 then
    write_lock(lock_key, now, {fence = 0, till = now + rest, attempts = attempts, since = since, owner = verdict})
    if not more then redis.call('PEXPIRE', lock_key, ms(rest)) end
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

local function register(name, callback, flags)
  redis.register_function{function_name = 'parley_' .. name, callback = callback, flags = flags}
end

-- Only what takes in more is refused when the memory is full; the rest is what empties it.
register('accept', accept, {})
register('claim', claim, {'allow-oom'})
register('commit', commit, {'allow-oom'})
register('take', take, {'allow-oom'})
register('settle', settle, {'allow-oom'})
register('tick', tick, {'allow-oom'})
register('ring', ring, {'allow-oom'})
register('grant', grant, {'allow-oom'})
register('book', book, {'allow-oom'})
