-- The lock of an outbox, whose owner is a state. outbox_states.py has the table: which states there are, how each is spelled,
-- and who takes an outbox from one to another. Nothing else reads or writes the owner of such a lock.
--
-- A lock in Lua has besides its `fence`, `till`, `attempts` and `since`: `state`; `tag`, the token or the epoch that the
-- state carries, or ''; `uncertain`, whether the provider may have the oldest SMS. No lock: the outbox is free.

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
  write_lock(key, now, lock)
end
