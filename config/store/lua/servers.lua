-- Is this the server on which the shard was worked before? A replica that was promoted, and a server that was started again,
-- may not have what was done last: an SMS may have left of which it knows nothing. So nobody works on a shard there before
-- Python has looked at it (workers/store/failovers.py), and then it is known before when what was done may be lost.
--
-- A server is known by its process and by the history that it goes on with: a promotion begins another history, a start
-- another process. What a server does not show of itself is taken for unchanged.

local LOOK_AGAIN_MS = 500  -- how long a history is taken for unchanged

local this = {process = nil, name = '', looked = 0}

local function shown(section, field)
  local told = redis.pcall('INFO', section)
  return type(told) == 'string' and string.match(told, field .. ':(%x+)') or ''
end

local function this_server(now)
  if math.abs(now - this.looked) >= LOOK_AGAIN_MS then
    this.process = this.process or shown('server', 'run_id')
    this.name, this.looked = this.process .. ' ' .. shown('replication', 'master_replid'), now
  end
  return this.name
end

-- This server's name in its cluster; '' if it is of none.
local function this_node()
  if not this.node then
    local told = redis.pcall('CLUSTER', 'MYID')
    this.node = type(told) == 'string' and told or ''
  end
  return this.node
end

local function admit(key, server, lost)
  redis.call('HSET', key, 'admitted', server .. ' ' .. lost)
  if this_node() ~= '' then redis.call('HSET', key, 'node', this_node()) end
end

-- Whether this server's history goes on from another's: it was promoted.
local function was_promoted()
  return string.find(shown('replication', 'master_replid2'), '[^0]') ~= nil
end

-- Notes a server that is another than the one that was admitted, once, with the ms at which it came and how: 'promoted' if its
-- history goes on from another's, else 'restarted'. One that has only begun to call its history otherwise, having no
-- replicas, is the same. Answers whether it is.
local function note_newcomer(key, now, admitted, newcomer)
  local promoted = was_promoted()
  if not promoted and string.match(admitted, '^%x*') == this.process then
    admit(key, newcomer, string.match(admitted, '%d+$'))
    return true
  end
  if redis.call('HGET', key, 'newcomer') ~= newcomer then
    redis.call('HSET', key, 'newcomer', newcomer, 'came_ms', ms(now), 'came_by', promoted and 'promoted' or 'restarted')
  end
  return false
end

-- The ms before which what was done on this shard may be lost, 0 if nothing is; nil if nobody may work on it yet. A moment that
-- is still to come was noted before the clock was set back: then it is now.
local function lost_before(key, now)
  local server, admitted = this_server(now), redis.call('HGET', key, 'admitted')
  if admitted and string.find(admitted, server, 1, true) == 1 then
    local lost = tonumber(string.sub(admitted, #server + 2))
    if lost > now then
      lost = now
      admit(key, server, ms(now))
    end
    return lost
  end
  if admitted and not note_newcomer(key, now, admitted, server) then return nil end
  if not admitted then admit(key, server, '0') end -- nobody has worked on it, or only an older release
  return tonumber(string.match(redis.call('HGET', key, 'admitted'), '%d+$'))
end

-- The last fencing token that was given out before what may be lost; 0 if nothing is. No clock tells: that of a server that was
-- promoted may be behind, and any may be set back.
local function last_void_fence(key, lost)
  if lost == 0 then return 0 end
  local server, fence = string.match(redis.call('HGET', key, 'void') or '', '^(.*) (%d+)$')
  return server == this.name and tonumber(fence) or lost * 1000 - 1 -- as 0.1.0 has it, which notes none
end

local UNKNOWN_SERVER = {err = 'UNKNOWNSERVER it may have lost what was done last'}

-- Works on the shard from now on, if it still is the newcomer. `lost`: what was done before it came may be. Answers 1 if so.
local function admit_server(keys, args)
  if redis.call('HGET', keys.server, 'newcomer') ~= args.newcomer or this_server(clock()) ~= args.newcomer then return 0 end
  local lost = args.lost == '1' and redis.call('HGET', keys.server, 'came_ms')
    or string.match(redis.call('HGET', keys.server, 'admitted') or '', '%d+$') or '0'
  if args.lost == '1' then
    redis.call('HSET', keys.server, 'void', args.newcomer .. ' ' .. (redis.call('GET', keys.fence) or '0'))
  end
  admit(keys.server, args.newcomer, lost)
  redis.call('HDEL', keys.server, 'newcomer', 'came_ms', 'came_by')
  return 1
end

-- States in which a sender rests: nothing leaves before they end.
local RESTS = {[STATE.done] = true, [STATE.again] = true, [STATE.untried] = true, [STATE.booked] = true}

-- Whether the oldest SMS, and so any, may have been tried between what the server has last and `came`. Not one that rested
-- until then, nor one whose channel was paused; a rest that is the channel's may have been ended early.
local function may_have_left(lock, channel, came)
  if channel == 'paused' then return false end
  if not lock or not RESTS[lock.state] or lock.till < came then return true end
  return channel == 'reopening' and (lock.state == STATE.untried or lock.state == STATE.booked)
end

-- Marks SMS as uncertain that may have been tried in what a newcomer has lost. The one that is being tried is known by its
-- lock. Answers how many.
local function mark_lost_tries(keys, args)
  local now = clock()
  local marked = 0
  if lost_before(keys.server, now) then return 0 end -- it has been admitted meanwhile, and SMS have been tried since
  local came = tonumber(redis.call('HGET', keys.server, 'came_ms'))
  local state_of = {}
  for i = 1, #args.channels do state_of[args.channels[i].name] = args.channels[i].state end
  for i = 1, #args.outboxes do
    local outbox, lock = keys.outboxes[i].outbox, read_outbox_lock(keys.outboxes[i].outbox_lock)
    local entries = redis.call('LRANGE', outbox, 0, -1)
    local channel = entries[1] and state_of[string.match(entries[1], '^%Z*')]
    if may_have_left(lock, channel, came) then
      for at = lock and lock.state == STATE.trying and 2 or 1, #entries do
        local sms = read_sms(entries[at])
        if is_readable(sms) and sms[SMS.uncertain] == false and (sms[SMS.decided] or 0) < came then
          sms[SMS.uncertain] = true
          redis.call('LSET', outbox, at - 1, string.match(entries[at], '^%Z*%z') .. cmsgpack.pack(sms))
          marked = marked + 1
        end
      end
    end
  end
  return marked
end

register('admit_server', admit_server, {'allow-oom'})
register('mark_lost_tries', mark_lost_tries, {'allow-oom'})
