-- How many sessions of a campaign are in which state: counted by the call that changes a state, never by a look at them all.
--
-- Of an invitation that belongs to a campaign, a line lies at its id for as long as its state may change: the state, of which
-- channel and survey it is, and the campaign. So a change needs no more than the id; made twice, it changes nothing; and one that a
-- worker of 0.1.0 did not count is made up for by the next. Both keys are of the person's shard, as what changes with them
-- is: a server that loses its tail loses both.

local ONGOING = {held = true, waiting = true, open = true, ['refused/dead_letter'] = true}

-- Changes of counts, gathered so that a call writes each campaign once; and until when its invitations are held.
local function new_changes()
  return {counts = {}, due = {}}
end

local function add_change(changes, campaign, of, state, by)
  local counts = changes.counts[campaign] or {}
  local name = of .. ' ' .. state
  counts[name] = (counts[name] or 0) + by
  changes.counts[campaign] = counts
end

-- What was not there before, is in this state from now on, as its campaign counts it.
local function begin_state(changes, sessions, id, state, of, campaign, due)
  if ONGOING[state] then redis.call('HSET', sessions, id, state .. ' ' .. of .. ' ' .. campaign) end
  add_change(changes, campaign, of, state, 1)
  changes.due[campaign] = math.max(changes.due[campaign] or 0, due)
end

-- A session is in another state, if it is of a campaign and not over; '': it is forgotten, and counts no more.
local function change_state(changes, sessions, id, state)
  local line = redis.call('HGET', sessions, id)
  local was, of, campaign = string.match(line or '', '^(%S+) (%S+ %S+) (.*)$')
  if not was or was == state then return end
  if ONGOING[state] then
    redis.call('HSET', sessions, id, state .. ' ' .. of .. ' ' .. campaign)
  else
    redis.call('HDEL', sessions, id)
  end
  add_change(changes, campaign, of, was, -1)
  if state ~= '' then add_change(changes, campaign, of, state, 1) end
end

local function write_changes(campaigns, now, changes)
  for campaign, counts in pairs(changes.counts) do
    local read, known = pcall(cjson.decode, redis.call('HGET', campaigns, campaign) or '{}')
    if not read or type(known) ~= 'table' then known = {} end
    local all = known.counts or {}
    for name, by in pairs(counts) do
      local count = (tonumber(all[name]) or 0) + by
      all[name] = count ~= 0 and count or nil
    end
    known.at, known.counts = now, all
    known.due = math.max(tonumber(known.due) or 0, changes.due[campaign] or 0)
    redis.call('HSET', campaigns, campaign, cjson.encode(known))
  end
end

-- Sessions whose person is erased, or that are not kept.
local function forget_campaign_sessions(keys, args)
  local changes = new_changes()
  for i = 1, #args.sessions do change_state(changes, keys.campaign_sessions, args.sessions[i], '') end
  write_changes(keys.campaigns, clock(), changes)
  return 1
end

-- Campaigns that have not changed since `before_ms` are forgotten, with what is left of their sessions: that of letters which were
-- dropped. Answers how many.
local function forget_campaigns(keys, args)
  local idle, many = {}, 0
  for i = 1, #args.names do
    local stored = redis.call('HGET', keys.campaigns, args.names[i])
    local read, known = pcall(cjson.decode, stored or '{}')
    local at = read and type(known) == 'table' and tonumber(known.at) or 0
    if stored and at < tonumber(args.before_ms) then
      redis.call('HDEL', keys.campaigns, args.names[i])
      idle[args.names[i]], many = true, many + 1
    end
  end
  if many == 0 then return 0 end
  local lines = redis.call('HGETALL', keys.campaign_sessions)
  for i = 1, #lines, 2 do
    if idle[string.match(lines[i + 1], '^%S+ %S+ %S+ (.*)$') or ''] then
      redis.call('HDEL', keys.campaign_sessions, lines[i])
    end
  end
  return many
end

register('forget_campaigns', forget_campaigns, {'allow-oom'})
register('forget_campaign_sessions', forget_campaign_sessions, {'allow-oom'})
