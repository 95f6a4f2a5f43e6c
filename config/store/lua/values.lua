-- What must happen to a lane at once, or not at all.
--
-- Laws. Every key that a function touches is in KEYS, and all of them share one hash slot; but for bells, which a function that is
-- given their database has rung there at the end of its command (calls.lua), on a server that is no cluster's. Time is the server's, and may be
-- set back or ahead: a moment that was stored is never believed to be further ahead than it can be, and what must not go is
-- given no end (workers/README.md, "When a clock is wrong").
-- Every function may be called twice with the same arguments (a client retries a call whose reply was lost) and
-- changes nothing the second time. The files of this
-- folder are one library, in the order that lua_library.py says; `@library@` becomes a name that no other text has, so
-- that the functions of two releases live side by side while one follows the other. No file knows a position:
-- `keys.NAME`, `args.NAME`, `keys.GROUP[i].NAME`, `#args.GROUP` are put in by the order in which server_functions.py
-- declares the arguments of the function `f(keys, args)` around them, `SMS.FIELD` by the type of an SMS, `STATE.NAME` by
-- the table in outbox_states.py. Values are bytes that only Python reads, behind small headers that are read here:
--
--   mail entry    kind .. 13 digits of ms .. event          kind: 'S' a START, 'R' anything else; the event is looked at
--                 for whether it may be a STOP (mailboxes.lua)
--   lane          fence ' ' deadline ' ' state              deadline: ms at which the engine wants to be called, or 0
--   lock          fence ' ' until ' ' attempts ' ' since ' ' owner
--                 kept beyond `until`, so that a death is counted; since: ms of the first attempt; those of a lane's
--                 later attempts follow its owner: owner ';' ms ',' ms. With 0 attempts an operator
--                 holds the lane for a dead letter, and if they never come back, nothing is to blame for it
--   outbox entry  channel '\0' sms
--   outbox-lock   as lock; fence 0: nobody sends, the sender rests until `until`. Its owner is a state (outbox_locks.lua)
--   tries         what failed tries of the oldest SMS came to, oldest first; each is only read in Python
--   tickets       what a provider that does not know repeats called the SMS that it accepted, newest first
--   optouts       hash of a sender -> JSON, channel -> [ms, source]: who has opted out, without their numbers
--   applied       keyed hash of an event -> ms at which it was applied (applied_events.lua)
--   events        to, e: whose an entry is, and its records; d: a record that 0.1.0 cannot read (event_entries.py)
--   session       ms from which on its records are found ' ' sender; empty: forgotten on purpose
--   held          invitation -> ms before which it is not released; held-mail: invitation -> sender '\0' 13 digits of ms event
--   campaigns     campaign -> when it last changed (at, ms), until when its invitations are held (due, ms), and how many of
--                 them, or of their sessions, are in which state (counts: "channel survey state" -> how many), as JSON
--   campaign-sessions  session -> its state ' ' channel ' ' survey ' ' campaign, while that may change (campaigns.lua)
--   reference     fingerprint of what was invited under it, first come; empty: forgotten on purpose
--   pause         why a channel sends nothing, as JSON (config/store/pauses.py), for as long as it lasts
--   flow          a channel's circuit and pace, a hash: failures (tries in a row at which the provider failed), began (ms
--                 of the first of them); clock (ms at which it was last written, give or take a second); level (how often in a row the circuit opened: there while it is open), by, why,
--                 opened (ms); probing (there while one SMS does); held (there once SMS have been turned away by a pause);
--                 epoch (ms of its end: permits booked before are void); looks, yields (ms until which looks are spread of
--                 SMS turned away, and of those that yield), unasked (ms at which one of the latter last left)
--   server        which server the shard was worked on last, before when (ms) what was done there may be lost, and which one
--                 has come since, a hash (servers.lua)
--   alarms        sender -> ms; an index that claim, commit, lease_sms and update_outbox keep true, and take_due_alarms reads.
--                 Half a ms more says that the clock has rung, and nobody has come since

local LOOK_MS = 2000      -- mail that nobody has looked at by then is woken for again
local FORGET_MS = 604800000 -- a lock that nobody came back to
local LEASE_MS = 20000    -- no lease, of a lane or of an SMS, is longer
local TICKETS = 50        -- tickets of a sender that are remembered
local TICKETS_MS = 172800000 -- and for how long: twice as long as an SMS may be looked up

local function ms(n)
  return string.format('%.0f', n)
end

local function read_lock(key)
  local lock = redis.call('GET', key)
  if not lock then return nil end
  local fence, till, attempts, since, owner = string.match(lock, '^(%d+) (%d+) (%d+) (%d+) (.*)$')
  if not fence then return nil end
  return {
    fence = tonumber(fence), till = tonumber(till), attempts = tonumber(attempts), since = tonumber(since),
    owner = owner,
  }
end

local function lock_value(lock)
  return table.concat({ms(lock.fence), ms(lock.till), lock.attempts, ms(lock.since), lock.owner}, ' ')
end

local function write_lock(key, now, lock)
  redis.call('SET', key, lock_value(lock), 'PX', ms(lock.till - now + FORGET_MS))
end

-- The lock of a lane, and whether its end had to be brought nearer: if it ends later than a lease can, the clock was set
-- back since, and it ends then.
local function read_lease(key, now)
  local lock = read_lock(key)
  if not lock or lock.till <= now + LEASE_MS then return lock, false end
  lock.till = now + LEASE_MS
  write_lock(key, now, lock)
  return lock, true
end

-- The first of `many` new fencing tokens. They follow the clock: a server that has lost its tail, in a failover or a crash,
-- gives none out twice, and nothing that was begun before can be taken for what was begun after.
local function new_fences(key, now, many)
  local first = math.max(tonumber(redis.call('GET', key) or '0') + 1, now * 1000)
  redis.call('SET', key, ms(first + many - 1))
  return first
end

local function read_lane(key)
  local lane = redis.call('GET', key)
  if not lane then return 0, 0, '' end
  local fence, deadline, at = string.match(lane, '^(%d+) (%d+) ()')
  if not fence then return 0, 0, lane end -- damaged: whoever decodes the state will say so
  return tonumber(fence), tonumber(deadline), string.sub(lane, at)
end

-- Alarms to set or clear, gathered so that many cost one command. `at` 0 clears.
local function new_alarms()
  return {set = {}, clear = {}}
end

local function note_alarm(noted, sender, at)
  if at > 0 then
    local n = #noted.set
    noted.set[n + 1], noted.set[n + 2] = ms(at), sender
  else
    noted.clear[#noted.clear + 1] = sender
  end
end

local function set_alarms(alarms, noted)
  if #noted.set > 0 then redis.call('ZADD', alarms, unpack(noted.set)) end
  if #noted.clear > 0 then redis.call('ZREM', alarms, unpack(noted.clear)) end
end

local function record(events, sender, records)
  redis.call('XADD', events, '*', 'to', sender, 'e', records)
end

local MAP_HEAD = {[0xde] = 3, [0xdf] = 5} -- bytes; below, those of a length
local LENGTH_OF_BYTES = {[0xc4] = 1, [0xc5] = 2, [0xc6] = 4}
