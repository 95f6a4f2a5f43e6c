-- Invitations: accepted once, held until their turn, released into mailboxes.

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
      rings[i - 3] = deliver(keys[1], keys[i], now, sender, entry)
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

register('refer', refer, {})
register('hold', hold, {})
register('due', due, {'allow-oom'})
register('oldest', oldest, {'allow-oom'})
register('release', release, {'allow-oom'})
register('unhold', unhold, {'allow-oom'})
