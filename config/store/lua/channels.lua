-- When may a channel's SMS leave? Its rate, its pauses, its circuit.

local LOOKS = 50          -- SMS a second, at the most, that look whether a pause is over
local RECHECK_MS = 60000  -- how late one may look, whose pause may be ended sooner
local PROBING_MS = 1000   -- how soon one looks again while another probes the circuit
local YIELDED_MS = 5000   -- a channel full of replies sends one unasked SMS after so long without any (or after 10 permits)

-- A bucket is one time: the moment at which it would be full again (GCRA).
local function read_bucket(key, now)
  return math.max(now, tonumber(redis.call('GET', key) or '0'))
end

local function write_bucket(key, now, full_at)
  redis.call('SET', key, string.format('%.3f', full_at), 'PX', ms(math.ceil(full_at - now) + 1000))
end

-- grant: KEYS bucket; ARGV permits a second, burst, wanted. Answers how many of them are there now, and takes those.
-- Called twice it takes twice, as depart does: the exceptions to the law above, and on the safe side.
local function grant(keys, args)
  local now = clock()
  local each, burst, wanted = 1000 / tonumber(args[1]), tonumber(args[2]), tonumber(args[3])
  local full_at = read_bucket(keys[1], now)
  local granted = math.max(0, math.min(wanted, math.floor(burst - (full_at - now) / each + 1e-9)))
  if granted > 0 then write_bucket(keys[1], now, full_at + granted * each) end
  return granted
end

-- count: KEYS counter; ARGV SMS that were decided, seconds to keep the counter. Called twice it counts twice, on the safe
-- side too.
local function count(keys, args)
  redis.call('INCRBY', keys[1], args[1])
  redis.call('EXPIRE', keys[1], args[2])
  return 1
end

-- A channel's flow; times are numbers, 0 if they are not there.
local function read_flow(key)
  local flow = {failures = 0, began = 0, level = 0, opened = 0, epoch = 0, looks = 0, yields = 0, unasked = 0}
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    flow[fields[i]] = flow[fields[i]] and tonumber(fields[i + 1]) or fields[i + 1]
  end
  return flow
end

local function write_flow(key, fields)
  for name, value in pairs(fields) do
    if value == 0 then
      redis.call('HDEL', key, name)
    else
      redis.call('HSET', key, name, type(value) == 'number' and ms(value) or value)
    end
  end
  redis.call('PEXPIRE', key, ms(FORGET_MS))
end

-- Who paused a channel; nil if nobody has. What cannot be read is taken for the account's, as in config/store/pauses.py.
local function paused_by(key)
  local pause = redis.call('GET', key)
  if not pause then return nil end
  local read, found = pcall(cjson.decode, pause)
  return read and type(found) == 'table' and found.by or 'account'
end

-- What the circuit has to say holds, unless an operator has paused the channel.
local function pause_circuit(key, flow, for_ms)
  if paused_by(key) == 'operator' then return end
  local pause = {by = flow.by, why = flow.why, since = flow.opened}
  redis.call('SET', key, cjson.encode(pause), 'PX', ms(for_ms))
end

-- depart: KEYS pause, flow, bucket; ARGV permits a second (0: no limit), burst, ms that a probe may take, then for each SMS
-- that wants to leave on the channel: 'reply', 'unasked', or the epoch in which it has booked a permit for now.
-- Answers {epoch, 1 if the provider has failed of late or SMS were turned away, 1 if the pause that turned them away is
-- over and nobody has brought them forward, 1 if the first SMS that may leave is to probe, then for each SMS 0 if it may
-- leave, ms from now if its permit is booked for then, or -ms if it shall look again then}.
--
-- While the channel pauses, looks are spread at its rate: whoever waits costs little, and leaves in turn when it is over.
-- Once a circuit's pause ends, one SMS probes and the others wait for what comes of it. Permits are booked ahead by replies,
-- so that a long queue costs each of its members two looks, not one for every permit that goes to another. An unasked SMS
-- takes one that is there, while half of the burst is left, and yields else: it looks again when what the replies have
-- booked is through, by turns. A permit taken and not used is lost. Called twice it takes twice, as grant does.
local function depart(keys, args)
  local now = clock()
  local pause_key, flow_key, bucket = unpack(keys)
  local rate, burst, probe_ms = tonumber(args[1]), tonumber(args[2]), tonumber(args[3])
  local flow, new = read_flow(flow_key), {}
  local each = rate > 0 and 1000 / rate or 0
  local from, probes, reopened = 4, 0, 0
  local answer = {}

  local function turn_away(left)
    local at = math.max(flow.looks, now + left)
    for i = from, #args do
      answer[i + 1] = -math.max(1, math.ceil(at - now))
      at = at + math.max(each, 1000 / LOOKS)
    end
    new.looks, new.held = at, 1
  end

  local left = redis.call('PTTL', pause_key)
  if left ~= -2 then
    local probing = flow.probing and paused_by(pause_key) ~= 'operator'
    turn_away(probing and PROBING_MS or left < 0 and RECHECK_MS or math.min(left, RECHECK_MS))
  elseif flow.level > 0 then
    pause_circuit(pause_key, flow, probe_ms)
    answer[5], from, probes = 0, 5, 1
    new.probing = 1
    turn_away(PROBING_MS)
  else
    if flow.held then
      reopened, flow.epoch, flow.yields = 1, now, 0
      new.held, new.looks, new.probing, new.epoch, new.yields = 0, 0, 0, now, 0
    end
    local full_at = rate > 0 and read_bucket(bucket, now) or now
    if reopened == 1 then full_at = math.min(full_at, now + burst * each) end -- what was booked in a pause is void
    local function room() return burst - (full_at - now) / each + 1e-6 end
    local function book()
      full_at = full_at + each
      return math.max(0, math.ceil(full_at - now - burst * each - 1e-6))
    end
    for i = from, #args do
      if rate == 0 or tonumber(args[i]) == flow.epoch then
        answer[i + 1] = 0
      elseif args[i] ~= 'unasked' then
        answer[i + 1] = book()
      elseif room() >= 1 + math.floor(burst / 2) or now - flow.unasked > math.max(YIELDED_MS, 10 * each) then
        answer[i + 1] = book()
        flow.unasked, new.unasked = now, now
      else
        flow.yields = math.max(flow.yields, math.ceil(full_at - (burst - 1 - math.floor(burst / 2)) * each))
        answer[i + 1] = -math.max(1, flow.yields - now)
        flow.yields = math.ceil(flow.yields + each)
        new.yields = flow.yields
      end
    end
    if rate > 0 then write_bucket(bucket, now, full_at) end
  end
  if next(new) then write_flow(flow_key, new) end
  answer[1], answer[2], answer[3], answer[4] = flow.epoch, flow.failures, reopened, probes
  return answer
end

-- report: KEYS pause, flow; ARGV failures in a row that open the circuit, ms that they must span, ms for which it opens
-- first, ms at the most, ms that a fault of the account takes, then (how, ms it took, why) for each try. how: 'works',
-- 'fails', 'faults' (the account's fault), 'unmade' (of a probe that was not made); after a 'probe-' if it probed. Answers
-- {ms until the next probe if the circuit is open now, or 0; who opened it just now, or ''; 1 if it was closed just now}.
-- Called twice it counts twice, which opens a circuit sooner, or for longer.
local function report(keys, args)
  local now = clock()
  local pause_key, flow_key = unpack(keys)
  local enough, span, first, most, fault_ms = unpack(args, 1, 5)
  local flow = read_flow(flow_key)
  local opened, closed = '', 0

  local function open(by, why)
    if flow.level == 0 or by ~= flow.by then flow.level, flow.opened, opened = 0, now, by end
    flow.level, flow.by, flow.why = flow.level + 1, by, why
    flow.rest = by == 'account' and fault_ms or math.min(most, first * 2 ^ math.min(flow.level - 1, 30))
    flow.failures, flow.began = 0, 0
    pause_circuit(pause_key, flow, flow.rest)
  end

  for i = 6, #args, 3 do
    local took, why = tonumber(args[i + 1]), args[i + 2]
    local how, probed = string.gsub(args[i], '^probe%-', '')
    probed = probed > 0
    if how == 'faults' then
      if probed or flow.level == 0 or flow.by ~= 'account' then open('account', why) end
    elseif probed and flow.level > 0 then
      if how == 'fails' then
        open('circuit', why)
      else
        if paused_by(pause_key) ~= 'operator' then redis.call('DEL', pause_key) end
        if how == 'works' then
          flow.level, flow.failures, flow.began, closed = 0, 0, 0, 1
        end
      end
    elseif flow.level == 0 then
      if how == 'works' then
        flow.failures, flow.began = 0, 0
      elseif how == 'fails' then
        if flow.failures == 0 then flow.began = now - took end
        flow.failures = flow.failures + 1
        if flow.failures >= tonumber(enough) and now - flow.began >= tonumber(span) then open('circuit', why) end
      end
    end
  end
  local new = {failures = flow.failures, began = flow.began, level = flow.level, opened = flow.opened}
  new.by, new.why = flow.by, flow.why
  if opened ~= '' or flow.rest then new.held = 1 end
  if flow.rest or flow.level == 0 then new.probing = 0 end
  write_flow(flow_key, new)
  local left = redis.call('PTTL', pause_key)
  if left == -1 then left = RECHECK_MS end
  local rest = flow.level > 0 and math.min(RECHECK_MS, math.max(0, left)) or 0
  return {rest, opened, closed}
end

-- resume: KEYS pause, flow. Ends the channel's pause, whoever made it, and closes its circuit. Answers the pause and the
-- ms that it had left, as PTTL says, or {} if there was none.
local function resume(keys)
  local pause, left = redis.call('GET', keys[1]), redis.call('PTTL', keys[1])
  redis.call('DEL', keys[1])
  write_flow(keys[2], {level = 0, failures = 0, began = 0, probing = 0})
  return pause and {pause, left} or {}
end

-- forward: KEYS outbox-alarms, then (outbox, outbox-lock) for each sender; ARGV channel, 1 for those whose SMS nobody asked
-- for or 0 for the others, ms from now on which the first may look, ms between two of them, ms before which nobody looks
-- whose SMS the provider may have, a sender each. Those who rest because of the channel look sooner, if these are sooner.
-- Answers how many of them wait for the channel.
local function forward(keys, args)
  local now = clock()
  local channel, unasked, at, step = args[1], args[2] == '1', now + tonumber(args[3]), tonumber(args[4])
  local sure = now + tonumber(args[5])
  local waiting = 0
  for i = 6, #args do
    local outbox, lock_key = keys[2 * i - 10], keys[2 * i - 9]
    local lock = read_lock(lock_key)
    local verdict = lock and lock.fence == 0 and string.match(lock.owner, '^(%a+)%d*%??$')
    if verdict == 'untried' or verdict == BOOKED then
      local entry = redis.call('LINDEX', outbox, 0)
      if entry and string.match(entry, '^%Z*') == channel and (read_sms(entry)[10] == true) == unasked then
        waiting = waiting + 1
        local unsure = string.sub(lock.owner, -1) == '?'
        local soonest = unsure and math.max(at, sure) or at
        if lock.till > soonest then
          lock.till = math.ceil(soonest)
          lock.owner = 'untried' .. (unsure and '?' or '')
          write_lock(lock_key, now, lock)
          redis.call('ZADD', keys[1], ms(lock.till), args[i])
        end
        at = at + step
      end
    end
  end
  return waiting
end

register('grant', grant, {'allow-oom'})
register('count', count, {'allow-oom'})
register('depart', depart, {'allow-oom'})
register('report', report, {'allow-oom'})
register('resume', resume, {'allow-oom'})
register('forward', forward, {'allow-oom'})
