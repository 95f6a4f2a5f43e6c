-- Who has opted out, and who is to be forgotten.

-- A person's opt-outs. Raises if they cannot be read: they are not taken for none.
local function read_opt_outs(optouts, hash)
  local list = redis.call('HGET', optouts, hash)
  return list and cjson.decode(list) or {}
end

-- Take an opt-out of `channel` into the list; `at` 0: opted in again. An entry of the same ms stays.
local function note_opt_out(list, channel, at, source)
  at = tonumber(at)
  if at == 0 then
    list[channel] = nil
  elseif not list[channel] or list[channel][1] ~= at then
    list[channel] = {at, source}
  end
end

local function write_opt_outs(optouts, hash, list)
  if next(list) then
    redis.call('HSET', optouts, hash, cjson.encode(list))
  else
    redis.call('HDEL', optouts, hash)
  end
end

-- Answers, for each, 1 if it is new, 0 if the list had it. A lane that is there gets the mail, and so does one that is being
-- made.
local function add_opt_outs(keys, args)
  local now = clock()
  local answers = {}

  local function tell(i)
    local mailbox = keys.lanes[i].mailbox
    if redis.call('EXISTS', mailbox, keys.lanes[i].lane, keys.lanes[i].lane_lock, keys.lanes[i].outbox) > 0 then
      deliver_event(keys.lane_alarms, mailbox, now, args.lanes[i].sender, args.lanes[i].lane_mail, ms(now))
    end
  end

  for i = 1, #args.opt_outs do
    local hash, channel, at = args.opt_outs[i].number_hash, args.opt_outs[i].channel, args.opt_outs[i].at_ms
    local list = read_opt_outs(keys.optouts, hash)
    local known = list[channel] ~= nil
    if not known then
      note_opt_out(list, channel, at == '0' and now or at, args.opt_outs[i].source)
      write_opt_outs(keys.optouts, hash, list)
      if #keys.lanes > 0 then tell(i) end
    end
    answers[i] = known and 0 or 1
  end
  return answers
end

-- The list forgets these channels. Answers how many it had, or -1 if the lane has changed or is held: read it again.
local function remove_opt_outs(keys, args)
  local now = clock()
  local lock = read_lease(keys.lane_lock, now)
  if lock and lock.till > now then return -1 end
  if (redis.call('GET', keys.lane) or '') ~= args.lane_before then return -1 end
  if args.lane_after ~= args.lane_before then redis.call('SET', keys.lane, args.lane_after, 'KEEPTTL') end
  if args.records ~= '' then record(keys.events, args.sender, args.records) end
  local list = read_opt_outs(keys.optouts, args.number_hash)
  local known = 0
  for i = 1, #args.channels do
    if list[args.channels[i]] then known = known + 1 end
    list[args.channels[i]] = nil
  end
  write_opt_outs(keys.optouts, args.number_hash, list)
  return known
end

-- Whoever holds the lane or an SMS can neither commit nor settle after that. Answers {ms, mail, lanes, SMS, other keys,
-- alarms} removed, or {} if the mail or the lane has changed: read them again.
local function erase_lane(keys, args)
  if table.concat(redis.call('LRANGE', keys.mailbox, 0, -1)) ~= args.mail_before then return {} end
  if (redis.call('GET', keys.lane) or '') ~= args.lane_before then return {} end
  remember_events(keys.applied_events, args.known_events, clock(), tonumber(args.keep_applied_ms))
  local list = read_opt_outs(keys.optouts, args.number_hash)
  for i = 1, #args.opt_outs do
    note_opt_out(list, args.opt_outs[i].channel, args.opt_outs[i].at_ms, args.opt_outs[i].source)
  end
  write_opt_outs(keys.optouts, args.number_hash, list)
  local mail, sms, others = redis.call('LLEN', keys.mailbox), redis.call('LLEN', keys.outbox), 0
  local lanes = redis.call('DEL', keys.lane)
  redis.call('DEL', keys.mailbox, keys.outbox)
  for i = 1, #keys.other_keys do others = others + redis.call('DEL', keys.other_keys[i]) end
  local alarms = redis.call('ZREM', keys.lane_alarms, args.sender) + redis.call('ZREM', keys.outbox_alarms, args.sender)
  return {clock(), mail, lanes, sms, others, alarms}
end

register('add_opt_outs', add_opt_outs, {'allow-oom'})
register('remove_opt_outs', remove_opt_outs, {'allow-oom'})
register('erase_lane', erase_lane, {'allow-oom'})
