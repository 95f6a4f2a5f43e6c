-- Invitations: accepted once under their reference, held until their turn, and released into mailboxes once.

-- Answers, for each, 1 if nothing else was ever accepted under this reference, 0 if an invitation of another content was,
-- -1 if what was is forgotten on purpose.
local function take_references(keys, args)
  local same = {}
  for i = 1, #keys.references do
    local key, fingerprint = keys.references[i].reference, args.references[i].fingerprint
    local first = redis.call('SET', key, fingerprint, 'NX', 'PXAT', args.references[i].until_ms)
    local known = first and fingerprint or redis.call('GET', key)
    same[i] = known == '' and -1 or known == fingerprint and 1 or 0
  end
  return same
end

-- Answers, for each, 1 if it is held from now on, or, if it is known to open nothing, recorded so; 0 if it was accepted before,
-- whatever has become of it.
local function hold_invitations(keys, args)
  local now = clock()
  local new, changes = {}, new_changes()
  for i = 1, #keys.invitations do
    local id, sender = args.invitations[i].id, args.invitations[i].sender
    local session, until_ms = keys.invitations[i].session, args.invitations[i].until_ms
    new[i] = redis.call('SET', session, ms(now) .. ' ' .. sender, 'NX', 'PXAT', until_ms) and 1 or 0
    if new[i] == 1 then
      local state, due = args.invitations[i].state, tonumber(args.invitations[i].not_before_ms)
      if state == 'held' then
        redis.call('HSET', keys.held_invitations, id, sender .. '\0' .. ms(now) .. args.invitations[i].event)
        redis.call('ZADD', keys.invitations[i].held_ids, args.invitations[i].not_before_ms, id)
      else
        record(keys.events, sender, args.invitations[i].event)
      end
      local campaign, of = args.invitations[i].campaign, args.invitations[i].campaign_part
      if campaign ~= '' then begin_state(changes, keys.campaign_sessions, id, state, of, campaign, due) end
    end
  end
  write_changes(keys.campaigns, now, changes)
  return new
end

-- Answers now, then for each channel how many are held, and how many of them may be released by now.
local function count_due_invitations(keys)
  local now = clock()
  local answer = {now}
  for i = 1, #keys.held_ids do
    answer[#answer + 1] = redis.call('ZCARD', keys.held_ids[i])
    answer[#answer + 1] = redis.call('ZCOUNT', keys.held_ids[i], '-inf', ms(now))
  end
  return answer
end

-- Answers now and (id, mail) of those that may be released by now. An id without mail is of no use, and goes.
local function read_due_invitations(keys, args)
  local now = clock()
  local found = {now}
  local ids = redis.call('ZRANGE', keys.held_ids, '-inf', ms(now), 'BYSCORE', 'LIMIT', 0, args.max_invitations)
  for _, id in ipairs(ids) do
    local mail = redis.call('HGET', keys.held_invitations, id)
    if mail then
      found[#found + 1] = id
      found[#found + 1] = mail
    else
      redis.call('ZREM', keys.held_ids, id)
    end
  end
  return found
end

-- Each is mail from now on, for the worker of STARTs, if it was held until now. Answers, for each, whom to wake, as accept
-- does; -1 if it was not held any more.
local function release_invitations(keys, args)
  local now = clock()
  local wakes, changes = {}, new_changes()
  for i = 1, #keys.invitations do
    local id = args.invitations[i].id
    local mail = redis.call('HGET', keys.held_invitations, id)
    redis.call('ZREM', keys.held_ids, id)
    if mail then
      redis.call('HDEL', keys.held_invitations, id)
      local entry = 'S' .. ms(now) .. string.sub(mail, string.find(mail, '%z') + 14)
      wakes[i] = deliver(keys.lane_alarms, keys.invitations[i].mailbox, now, args.invitations[i].sender, entry)
      change_state(changes, keys.campaign_sessions, id, 'waiting')
    else
      wakes[i] = -1
    end
  end
  write_changes(keys.campaigns, now, changes)
  return wakes
end

-- The invitation is held no more, and the records say why; without records, it is forgotten instead. In its campaign it counts as
-- `state` then. Answers 1 if it was held.
local function withdraw_invitation(keys, args)
  redis.call('HDEL', keys.held_invitations, args.id)
  if redis.call('ZREM', keys.held_ids, args.id) == 0 then return 0 end
  if args.records == '' then
    redis.call('SET', keys.session, '', 'XX', 'KEEPTTL')
  else
    redis.call('SET', keys.session, ms(clock()) .. ' ' .. args.sender, 'XX', 'KEEPTTL')
    record(keys.events, args.sender, args.records)
  end
  local changes = new_changes()
  change_state(changes, keys.campaign_sessions, args.id, args.state)
  write_changes(keys.campaigns, clock(), changes)
  return 1
end

register('take_references', take_references, {})
register('hold_invitations', hold_invitations, {})
register('count_due_invitations', count_due_invitations, {'allow-oom'})
register('read_due_invitations', read_due_invitations, {'allow-oom'})
register('release_invitations', release_invitations, {'allow-oom'})
register('withdraw_invitation', withdraw_invitation, {'allow-oom'})
