-- What people and providers say, before anybody has looked at it: an entry in a mailbox, and an alarm if it is the first.
--
-- The oldest entry says which worker has the lane, but whatever may be a STOP is anybody's, with all that was accepted
-- before it, and until it is read nothing leaves. That is told from the mailbox alone, so it ends with what waits there,
-- whoever has applied it.

local LOOKED_AT = 1000    -- entries of a mailbox that are looked at for a STOP; more of them may have one

local EITHER_QUEUE = 3    -- of `starts` and `replies`: as numbers of keyspace.QUEUES_BY_NUMBER

local SMS_TAG, STOP_TAG, PART_TAG = '\163sms', '\164stop', '\164part'
local TRUE = '\195'       -- as msgpack spells it: nearly every SMS has none, and need not be taken apart

-- Whether an entry may be a STOP, as engine.turns.inbound_sms.may_opt_out says it of its event.
local function may_be_stop(entry)
  local tag = string.sub(entry, 16, 20)
  if tag == STOP_TAG or tag == PART_TAG then return true end
  if string.sub(tag, 1, 4) ~= SMS_TAG or not string.find(entry, TRUE, 20, true) then return false end
  local read, event = pcall(cmsgpack.unpack, string.sub(entry, 15))
  return read and type(event) == 'table' and event[INBOUND.may_be_stop] == true
end

local function any_may_be_stop(mail)
  for i = 1, #mail do
    if may_be_stop(mail[i]) then return true end
  end
  return false
end

local function stop_may_wait(mailbox)
  local mail = redis.call('LRANGE', mailbox, 0, LOOKED_AT)
  return #mail > LOOKED_AT or any_may_be_stop(mail)
end

-- Whom an entry wants that is the oldest of its mailbox: 1 a worker of `starts`, 2 one of `replies`.
local function queue_of(entry)
  return string.sub(entry, 1, 1) == 'S' and 1 or 2
end

-- Whom a mailbox wants: 0 nobody.
local function queues_of(mailbox)
  local head = redis.call('LINDEX', mailbox, 0)
  if not head then return 0 end
  return stop_may_wait(mailbox) and EITHER_QUEUE or queue_of(head)
end

-- How many of `mail`, the oldest entries of a mailbox, a worker of this kind may claim: those of its kind that are before
-- any other, or all until the last that may be a STOP.
local function count_claimable(mailbox, mail, kind, most)
  local own = 0
  while own < #mail and string.sub(mail[own + 1], 1, 1) == kind do own = own + 1 end
  if own == #mail then return own end
  for i = #mail, own + 1, -1 do
    if may_be_stop(mail[i]) then return i end
  end
  return #mail == most and stop_may_wait(mailbox) and #mail or own
end

-- `queues` is what queues_of answers.
local function note_rings(database, queues, sender)
  if queues == 1 or queues == EITHER_QUEUE then note_ring(database, BELL.starts, sender) end
  if queues == 2 or queues == EITHER_QUEUE then note_ring(database, BELL.replies, sender) end
end

-- Answers whom to wake: nobody, if mail was waiting already, but everybody for what may be a STOP.
local function deliver(alarms, mailbox, now, sender, entry)
  local first = redis.call('RPUSH', mailbox, entry) == 1
  if first then redis.call('ZADD', alarms, 'LT', ms(now + LOOK_MS), sender) end
  if may_be_stop(entry) then return EITHER_QUEUE end
  return first and queue_of(entry) or 0
end

-- The entry of an event, which has its kind before it. `accepted`: the ms at which it was.
local function stamped(event, accepted)
  return string.sub(event, 1, 1) .. accepted .. string.sub(event, 2)
end

local function deliver_event(alarms, mailbox, now, sender, event, accepted)
  return deliver(alarms, mailbox, now, sender, stamped(event, accepted))
end

local MOST_MAIL = 10000   -- events of one person that may wait for a turn
local FULL = -1

-- Answers, for each event, whom to wake, as deliver does, or nobody if it has rung itself; FULL if it is refused, as too many of
-- its sender's wait. Those that were acknowledged already, and have an age, never are, nor is what may be a STOP.
-- Called twice, it delivers twice: the lane remembers an event's id when it is applied, so the copy is dropped there.
local function accept(keys, args)
  local now = clock()
  lost_before(keys.server, now) -- mail that a newcomer is given has been applied nowhere else
  local stamp = ms(now)
  local old = #args.ages_ms > 0
  local wakes = {}
  for i = 1, #keys.events do
    local accepted = old and ms(now - tonumber(args.ages_ms[i])) or stamp
    if not old and redis.call('LLEN', keys.events[i].mailbox) >= MOST_MAIL
        and not may_be_stop(stamped(args.events[i].event, accepted)) then
      wakes[i] = FULL
    else
      wakes[i] = deliver_event(keys.lane_alarms, keys.events[i].mailbox, now, args.events[i].sender, args.events[i].event,
        accepted)
      note_rings(args.bells_database, wakes[i], args.events[i].sender)
    end
  end
  return wakes, args.bells_database ~= '' and function()
    for i = 1, #wakes do wakes[i] = math.min(wakes[i], 0) end
  end or nil
end

register('accept', accept, {})
