-- When may a channel's SMS leave? Its rate, its pauses, its circuit.

local LOOKS = 50          -- SMS a second, at the most, that look whether a pause is over
local RECHECK_MS = 60000  -- how late one may look, whose pause may be ended sooner
local PROBING_MS = 1000   -- how soon one looks again while another probes the circuit
local YIELDED_MS = 5000   -- a channel full of replies sends one unasked SMS after so long without any (or after 10 permits)

local CLOCK_MS = 1000     -- so old the time may be that the state of a channel's circuit bears

-- A bucket is one time: the moment at which it would be full again (GCRA).
local function read_bucket(key, now)
  return math.max(now, tonumber(redis.call('GET', key) or '0'))
end

local function write_bucket(key, now, full_at)
  redis.call('SET', key, string.format('%.3f', full_at), 'PX', ms(math.ceil(full_at - now) + 1000))
end

-- Answers how many of the permits wanted are there now, and takes those.
-- Called twice it takes twice, as acquire_permits does: the exceptions to the law of values.lua, and on the safe side.
local function take_tokens(keys, args)
  local now = clock()
  local each, burst, wanted = 1000 / tonumber(args.rate_per_s), tonumber(args.burst), tonumber(args.wanted)
  local full_at, moved = read_bucket(keys.bucket, now), false
  if full_at > now + burst * each + 1 then full_at, moved = now + burst * each, true end -- the clock was set back
  local granted = math.max(0, math.min(wanted, math.floor(burst - (full_at - now) / each + 1e-9)))
  if granted > 0 or moved then write_bucket(keys.bucket, now, full_at + granted * each) end
  return granted
end

-- Called twice it counts twice, on the safe side too.
local function count_sms(keys, args)
  redis.call('INCRBY', keys.sms_counter, args.decided)
  redis.call('EXPIRE', keys.sms_counter, args.keep_s)
  return 1
end

local MOMENTS = {'began', 'opened', 'looks', 'yields', 'unasked'} -- of a circuit's state

local function write_circuit_state(key, fields)
  for name, value in pairs(fields) do
    if value == 0 then
      redis.call('HDEL', key, name)
    else
      redis.call('HSET', key, name, type(value) == 'number' and ms(value) or value)
    end
  end
  redis.call('PEXPIRE', key, ms(FORGET_MS))
end

-- The state of a channel's circuit and pace, as a table `flow`; times are numbers, 0 if they are not there. And by how many
-- ms the clock has been set back since it was written: its moments have moved by as much.
local function read_circuit_state(key, now)
  local flow = {failures = 0, began = 0, level = 0, opened = 0, epoch = 0, looks = 0, yields = 0, unasked = 0, clock = 0}
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    flow[fields[i]] = flow[fields[i]] and tonumber(fields[i + 1]) or fields[i + 1]
  end
  local behind = math.max(0, flow.clock - now)
  if behind > 0 then
    local moved = {clock = now}
    for _, name in ipairs(MOMENTS) do
      if flow[name] > 0 then flow[name], moved[name] = flow[name] - behind, flow[name] - behind end
    end
    write_circuit_state(key, moved)
  end
  return flow, behind
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

-- Answers {epoch, 1 if the provider has failed of late or SMS were turned away, 1 if the pause that turned them away is
-- over and nobody has brought them forward, 1 if the first SMS that may leave is to probe, then for each SMS 0 if it may
-- leave, ms from now if its permit is booked for then, or -ms if it shall look again then}.
--
-- While the channel pauses, looks are spread at its rate: whoever waits costs little, and leaves in turn when it is over.
-- Once a circuit's pause ends, one SMS probes and the others wait for what comes of it. Permits are booked ahead by replies,
-- so that a long queue costs each of its members two looks, not one for every permit that goes to another. An unasked SMS
-- takes one that is there, while half of the burst is left, and yields else: it looks again when what the replies have
-- booked is through, by turns. A permit taken and not used is lost. Called twice it takes twice, as take_tokens does.
local function acquire_permits(keys, args)
  local now = clock()
  local pause_key, flow_key, bucket = keys.pause, keys.circuit_state, keys.sms_bucket
  local rate, burst, probe_ms = tonumber(args.rate_per_s), tonumber(args.burst), tonumber(args.probe_lease_ms)
  local flow, behind = read_circuit_state(flow_key, now)
  local new = now - flow.clock > CLOCK_MS and {clock = now} or {}
  local each = rate > 0 and 1000 / rate or 0
  local from, probes, reopened = 1, 0, 0
  local answer = {}

  local function turn_away(left)
    local at = math.max(flow.looks, now + left)
    for i = from, #args.wanted do
      answer[4 + i] = -math.max(1, math.ceil(at - now))
      at = at + math.max(each, 1000 / LOOKS)
    end
    new.looks, new.held = at, 1
  end

  local left = redis.call('PTTL', pause_key)
  if left > RECHECK_MS and paused_by(pause_key) ~= 'operator' then -- no circuit pauses for longer: the clock was set back
    redis.call('PEXPIRE', pause_key, ms(RECHECK_MS))
    left = RECHECK_MS
  end
  if left ~= -2 then
    local probing = flow.probing and paused_by(pause_key) ~= 'operator'
    turn_away(probing and PROBING_MS or left < 0 and RECHECK_MS or math.min(left, RECHECK_MS))
  elseif flow.level > 0 then
    pause_circuit(pause_key, flow, probe_ms)
    answer[5], from, probes = 0, 2, 1
    new.probing = 1
    turn_away(PROBING_MS)
  else
    if flow.held then
      reopened, flow.epoch, flow.yields = 1, now, 0
      new.held, new.looks, new.probing, new.epoch, new.yields = 0, 0, 0, now, 0
    end
    local full_at = rate > 0 and math.max(now, read_bucket(bucket, now) - behind) or now
    if reopened == 1 then full_at = math.min(full_at, now + burst * each) end -- what was booked in a pause is void
    local function room() return burst - (full_at - now) / each + 1e-6 end
    local function book()
      full_at = full_at + each
      return math.max(0, math.ceil(full_at - now - burst * each - 1e-6))
    end
    for i = from, #args.wanted do
      local wanted = args.wanted[i]
      if rate == 0 or tonumber(wanted) == flow.epoch then
        answer[4 + i] = 0
      elseif wanted ~= 'unasked' then
        answer[4 + i] = book()
      elseif room() >= 1 + math.floor(burst / 2) or now - flow.unasked > math.max(YIELDED_MS, 10 * each) then
        answer[4 + i] = book()
        flow.unasked, new.unasked = now, now
      else
        flow.yields = math.max(flow.yields, math.ceil(full_at - (burst - 1 - math.floor(burst / 2)) * each))
        answer[4 + i] = -math.max(1, flow.yields - now)
        flow.yields = math.ceil(flow.yields + each)
        new.yields = flow.yields
      end
    end
    if rate > 0 then write_bucket(bucket, now, full_at) end
  end
  if next(new) then write_circuit_state(flow_key, new) end
  answer[1], answer[2], answer[3], answer[4] = flow.epoch, flow.failures, reopened, probes
  return answer
end

-- How a try ended is 'works', 'fails', 'faults' (the account's fault), or 'unmade' (of a probe that was not made); after a
-- 'probe-' if it probed. Answers
-- {ms until the next probe if the circuit is open now, or 0; who opened it just now, or ''; 1 if it was closed just now}.
-- Called twice it counts twice, which opens a circuit sooner, or for longer.
local function report_results(keys, args)
  local now = clock()
  local pause_key, flow_key = keys.pause, keys.circuit_state
  local enough, span, fault_ms = tonumber(args.max_failures), tonumber(args.failures_span_ms), args.account_fault_ms
  local first, most = args.open_min_ms, args.open_max_ms
  local flow = read_circuit_state(flow_key, now)
  local opened, closed = '', 0

  local function open(by, why)
    if flow.level == 0 or by ~= flow.by then flow.level, flow.opened, opened = 0, now, by end
    flow.level, flow.by, flow.why = flow.level + 1, by, why
    flow.rest = by == 'account' and fault_ms or math.min(most, first * 2 ^ math.min(flow.level - 1, 30))
    flow.failures, flow.began = 0, 0
    pause_circuit(pause_key, flow, flow.rest)
  end

  for i = 1, #args.results do
    local took, why = tonumber(args.results[i].took_ms), args.results[i].why
    local how, probed = string.gsub(args.results[i].health, '^probe%-', '')
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
        if flow.failures >= enough and now - flow.began >= span then open('circuit', why) end
      end
    end
  end
  local new = {failures = flow.failures, began = flow.began, level = flow.level, opened = flow.opened}
  new.by, new.why = flow.by, flow.why
  if opened ~= '' or flow.rest then new.held = 1 end
  if flow.rest or flow.level == 0 then new.probing = 0 end
  write_circuit_state(flow_key, new)
  local left = redis.call('PTTL', pause_key)
  if left == -1 then left = RECHECK_MS end
  local rest = flow.level > 0 and math.min(RECHECK_MS, math.max(0, left)) or 0
  return {rest, opened, closed}
end

-- Ends the pause, whoever made it. Answers the pause and the ms that it had left, as PTTL says, or {} if there was none.
local function resume_channel(keys)
  local pause, left = redis.call('GET', keys.pause), redis.call('PTTL', keys.pause)
  redis.call('DEL', keys.pause)
  write_circuit_state(keys.circuit_state, {level = 0, failures = 0, began = 0, probing = 0})
  return pause and {pause, left} or {}
end

-- Those who rest because of the channel look sooner, if these are sooner. Answers how many of them wait for the channel.
local function bring_forward(keys, args)
  local now = clock()
  local channel, unasked = args.channel, args.unasked == '1'
  local at, step, sure = now + tonumber(args.first_ms), tonumber(args.step_ms), now + tonumber(args.uncertain_rest_ms)
  local waiting = 0
  for i = 1, #args.outboxes do
    local lock = read_outbox_lock(keys.outboxes[i].outbox_lock)
    if lock and (lock.state == STATE.untried or lock.state == STATE.booked) then
      local entry = redis.call('LINDEX', keys.outboxes[i].outbox, 0)
      if entry and string.match(entry, '^%Z*') == channel and (read_sms(entry)[SMS.unasked] == true) == unasked then
        waiting = waiting + 1
        local soonest = lock.uncertain and math.max(at, sure) or at
        if lock.till > soonest then
          lock.till, lock.state, lock.tag = math.ceil(soonest), STATE.untried, ''
          write_outbox_lock(keys.outboxes[i].outbox_lock, now, lock)
          redis.call('ZADD', keys.outbox_alarms, ms(lock.till), args.outboxes[i].sender)
        end
        at = at + step
      end
    end
  end
  return waiting
end

register('take_tokens', take_tokens, {'allow-oom'})
register('count_sms', count_sms, {'allow-oom'})
register('acquire_permits', acquire_permits, {'allow-oom'})
register('report_results', report_results, {'allow-oom'})
register('resume_channel', resume_channel, {'allow-oom'})
register('bring_forward', bring_forward, {'allow-oom'})
