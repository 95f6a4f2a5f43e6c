-- The lock of an outbox, whose owner is a state. outbox_states.py has the table: which states there are, how each is spelled,
-- and who takes an outbox from one to another. Nothing else reads or writes the owner of such a lock.
--
-- A lock in Lua has besides its `fence`, `till`, `attempts` and `since`: `state`; `tag`, the token or the epoch that the
-- state carries, or ''; `uncertain`, whether the provider may have the oldest SMS. No lock: the outbox is free.
--
-- While an SMS waits, its lock has no end in Redis: a clock that is set ahead must not take from it that the provider may
-- have it. Once the outbox is empty, whoever sees so gives it one.

local REST_MS = 1800000 -- nobody rests for longer, but for a place that is booked behind many, or for the channel's pause
local LONGEST_MS = {
  [STATE.trying] = LEASE_MS, [STATE.gone] = LEASE_MS, [STATE.reserved] = LEASE_MS, [STATE.entrusted] = LEASE_MS,
  [STATE.again] = REST_MS,
}

local function read_outbox_lock(key)
  local lock = read_lock(key)
  if not lock then return nil end
  local owner, mark = string.match(lock.owner, '^(.-)(%??)$')
  lock.uncertain = mark ~= ''
  if lock.fence == 0 then
    lock.state, lock.tag = string.match(owner, '^(%a*) ?(.*)$')
  elseif owner == STATE.gone then
    lock.state, lock.tag = STATE.gone, ''
  else
    lock.state, lock.tag = STATE.trying, owner
  end
  return lock
end

local function write_outbox_lock(key, now, lock)
  local owner = lock.state == STATE.trying and '' or lock.state .. (TAG_GAPS[lock.state] or '')
  lock.owner = owner .. (lock.tag or '') .. (lock.uncertain and '?' or '')
  redis.call('SET', key, lock_value(lock))
end

-- The outbox is empty: the lock is kept for as long as somebody may come back to it.
local function let_outbox_lock_end(key, now, lock)
  redis.call('PEXPIRE', key, ms(math.max(1, lock.till - now + FORGET_MS)))
end

-- A lock that ends later than its state can last was written before the clock was set back: it ends then. `pause_ms` is
-- the longest pause of any channel.
local function read_outbox_lease(key, now, pause_ms)
  local lock = read_outbox_lock(key)
  local longest = lock and (lock.state == STATE.done and pause_ms or LONGEST_MS[lock.state])
  if longest and lock.till > now + longest then
    lock.till = now + longest
    write_outbox_lock(key, now, lock)
    if lock.state == STATE.reserved then redis.call('PEXPIREAT', key, ms(lock.till)) end
  end
  return lock
end

-- An SMS of an outbox as its fields, by their numbers; none if it cannot be read.
local function read_sms(entry)
  local read, sms = pcall(cmsgpack.unpack, entry and string.match(entry, '^%Z*%z(.*)$') or '')
  return read and type(sms) == 'table' and sms or {}
end

-- Whether it can be said which SMS it is.
local function is_readable(sms)
  return type(sms[SMS.id]) == 'string' and type(sms[SMS.channel]) == 'string' and type(sms[SMS.session] or '') == 'string'
end
