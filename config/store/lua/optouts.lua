-- Who has opted out, and who is to be forgotten.

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

register('opt_out', opt_out, {'allow-oom'})
register('opt_in', opt_in, {'allow-oom'})
register('erase', erase, {'allow-oom'})
