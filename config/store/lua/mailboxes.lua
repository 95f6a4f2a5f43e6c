-- What people and providers say, before anybody has looked at it: an entry in a mailbox, and an alarm if it is the first.

-- Answers whom to wake, as queue_of does: nobody, if mail was waiting already.
local function deliver(alarms, mailbox, now, sender, entry)
  if redis.call('RPUSH', mailbox, entry) > 1 then return 0 end
  redis.call('ZADD', alarms, 'LT', ms(now + LOOK_MS), sender)
  return queue_of(entry)
end

-- Delivers an event, which has its kind before it. `accepted`: the ms at which it was.
local function deliver_event(alarms, mailbox, now, sender, event, accepted)
  return deliver(alarms, mailbox, now, sender, string.sub(event, 1, 1) .. accepted .. string.sub(event, 2))
end

-- Answers, for each event, whom to wake, as deliver does.
-- Called twice, it delivers twice: the lane remembers an event's id when it is applied, so the copy is dropped there.
local function accept(keys, args)
  local now = clock()
  local stamp = ms(now)
  local old = #args.ages_ms > 0
  local wakes = {}
  for i = 1, #keys.events do
    local accepted = old and ms(now - tonumber(args.ages_ms[i])) or stamp
    wakes[i] = deliver_event(keys.lane_alarms, keys.events[i].mailbox, now, args.events[i].sender, args.events[i].event, accepted)
  end
  return wakes
end

register('accept', accept, {})
