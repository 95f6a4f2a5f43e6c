-- What people and providers say, before anybody has looked at it.

-- An entry goes into a mailbox. Answers whom to wake: 0 nobody, as mail was waiting already, 1 `starts`, 2 `replies`.
local function deliver(alarms, mailbox, now, sender, entry)
  if redis.call('RPUSH', mailbox, entry) > 1 then return 0 end
  redis.call('ZADD', alarms, 'LT', ms(now + LOOK_MS), sender)
  return ring_for(entry)
end

-- accept: KEYS alarms, then a mailbox for each event; ARGV (sender, kind .. event) for each event; then, unless all of
-- them are new, how long ago (ms) each was accepted by whoever hands it over.
-- Answers, for each event, whom to wake, as deliver does.
-- Called twice, it delivers twice: the lane remembers an event's id when it is applied, so the copy is dropped there.
local function accept(keys, args)
  local now = clock()
  local stamp = ms(now)
  local rings = {}
  for i = 2, #keys do
    local sender, event = args[2 * i - 3], args[2 * i - 2]
    local age = args[2 * (#keys - 1) + i - 1]
    local accepted = age and ms(now - tonumber(age)) or stamp
    local entry = string.sub(event, 1, 1) .. accepted .. string.sub(event, 2)
    rings[i - 1] = deliver(keys[1], keys[i], now, sender, entry)
  end
  return rings
end

register('accept', accept, {})
