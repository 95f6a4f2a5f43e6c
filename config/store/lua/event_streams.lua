-- How far an archive has a shard's event stream, and what is taken out of it: nothing that an archive, once one was seen,
-- does not have.
--
--   archived      id ' ' entries: the last entry that an archive has, and how many the stream had ever had by then (too few
--                 until the archive has all, if entries were deleted that it had not read)

local function read_entry_id(id)
  local at, seq = string.match(id, '^(%d+)%-(%d+)')
  return tonumber(at), tonumber(seq)
end

local function is_later(id, than)
  local at, seq = read_entry_id(id)
  local than_at, than_seq = read_entry_id(than)
  return at > than_at or (at == than_at and seq > than_seq)
end

-- The id of the last entry that the stream ever had, how many it ever had, and how many are there.
local function read_stream(events)
  if redis.call('EXISTS', events) == 0 then return '0-0', 0, 0 end
  local shown, field = redis.call('XINFO', 'STREAM', events), {}
  for i = 1, #shown, 2 do field[shown[i]] = shown[i + 1] end
  return field['last-generated-id'], field['entries-added'], field['length']
end

-- An archive has all entries up to `id`, `entries` more than when it last said so. That only ever moves forwards, and never
-- beyond what the stream has had: an archive that has more is of a server that has lost its tail, and what comes there now it
-- does not have. Answers 1 if the archive is known to be as far as that, or further, 0 if it is beyond the stream.
local function note_archived(keys, args)
  local last, ever, there = read_stream(keys.events)
  if is_later(args.id, last) then return 0 end
  local known = redis.call('GET', keys.archived)
  if known and not is_later(args.id, known) then return 1 end
  local before = math.max(known and tonumber(string.match(known, ' (%d+)$')) or 0, ever - there)
  local by_then = is_later(last, args.id) and math.min(ever, before + tonumber(args.entries)) or ever
  redis.call('SET', keys.archived, args.id .. ' ' .. ms(by_then))
  return 1
end

-- Takes out what is older than `archived_before_ms` and what an archive has, or, if none was ever seen, what is older than
-- `unarchived_before_ms`: whole nodes of the stream, with `max_entries` in them at the most, so that nobody waits for long.
-- Answers how many are gone.
local function trim_events(keys, args)
  local archived = redis.call('GET', keys.archived)
  local before = args.unarchived_before_ms .. '-0'
  if archived then
    if is_later(archived, (read_stream(keys.events))) then return 0 end -- of another stream: nobody knows what it has of this
    before = args.archived_before_ms .. '-0'
    if is_later(before, archived) then before = string.match(archived, '^%S+') end
  end
  return redis.call('XTRIM', keys.events, 'MINID', '~', before, 'LIMIT', args.max_entries)
end

register('note_archived', note_archived, {'allow-oom'})
register('trim_events', trim_events, {'allow-oom'})
