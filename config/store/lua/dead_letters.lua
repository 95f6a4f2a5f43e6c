-- Dead letters: put aside, counted by reason, and taken out again, which never goes without a word in the audit.

local AUDIT_MS = 34560000000 -- what operators did with dead letters is known for 400 days
local NO_RECORDS = '\144'    -- an empty list, as msgpack spells it

-- A dead letter, which is a map, as its fields, but for bytes, which cmsgpack does not know; those before it is damaged,
-- and none if there is no letter.
local function read_letter(letter)
  local fields = {}
  local head = letter and string.byte(letter) or 0
  local at = head >= 0x80 and head <= 0x8f and 1 or MAP_HEAD[head] or 0
  while at > 0 and at < #letter do
    local read, after, name = pcall(cmsgpack.unpack_one, letter, at)
    if not read or after < 0 then break end
    local digits = LENGTH_OF_BYTES[string.byte(letter, after + 1)]
    if digits then
      local length = 0
      for i = 1, digits do length = length * 256 + (string.byte(letter, after + 1 + i) or 0) end
      at = after + 1 + digits + length
    else
      local value
      read, at, value = pcall(cmsgpack.unpack_one, letter, after)
      if not read then break end
      fields[name] = value
    end
  end
  return fields
end

-- One whose reason cannot be read, being damaged, is not counted.
local function count_letter(reasons, letter, by)
  if type(letter.reason) ~= 'string' then return end
  if redis.call('HINCRBY', reasons, letter.reason, by) <= 0 then redis.call('HDEL', reasons, letter.reason) end
end

-- A letter that is added again keeps its place. No two have the same: within a millisecond they follow each other by
-- thousandths. Answers whether it is new.
local function add_letter(dead, index, reasons, now, id, letter)
  count_letter(reasons, read_letter(redis.call('HGET', dead, id)), -1)
  redis.call('HSET', dead, id, letter)
  count_letter(reasons, read_letter(letter), 1)
  if redis.call('ZSCORE', index, id) then return false end
  local last = redis.call('ZRANGE', index, -1, -1, 'WITHSCORES')[2]
  local score = math.max(now, last and tonumber(last) + 0.001 or 0)
  redis.call('ZADD', index, string.format('%.3f', score), id)
  return true
end

-- Records that a letter was put aside, as Python encodes DeadLetterAdded: in a field of its own, beside an empty list of
-- records, for 0.1.0 cannot read a list with a record in it that it does not know (config/store/event_entries.py).
local function record_letter(events, sender, now, id, letter)
  local fields = read_letter(letter)
  local function text(name) return type(fields[name]) == 'string' and fields[name] or '' end
  local at = type(fields.at) == 'number' and math.floor(fields.at) or now
  redis.call('XADD', events, '*', 'to', sender, 'e', NO_RECORDS, 'd', cmsgpack.pack({'dead_letter', at, text('channel'),
    text('session'), id, text('kind'), text('reason'), text('survey'), text('code'), text('why')}))
end

-- What was done with a letter, by whom, and what came of it: neither number nor text. `call` tells a call from others that
-- say the same; '' if it cannot be made twice.
local function write_audit(audit, id, letter, by, outcome, call)
  local oldest = ms(math.max(0, clock() - AUDIT_MS))
  redis.call('XADD', audit, 'MINID', '~', oldest, '*', 'id', id, 'by', by, 'outcome', outcome,
    'kind', tostring(letter.kind or ''), 'reason', tostring(letter.reason or ''), 'channel', tostring(letter.channel or ''),
    'call', call or '')
end

-- Whether the audit has what this call said, among what was said last.
local function is_in_audit(audit, call)
  for _, entry in ipairs(redis.call('XREVRANGE', audit, '+', '-', 'COUNT', 100)) do
    if entry[2][#entry[2] - 1] == 'call' and entry[2][#entry[2]] == call then return true end
  end
  return false
end

-- A letter goes, and the audit says why. Answers whether it was there.
local function remove_letter(dead, index, reasons, audit, id, by, outcome)
  local stored = redis.call('HGET', dead, id)
  redis.call('ZREM', index, id)
  if not stored then return false end
  local letter = read_letter(stored)
  redis.call('HDEL', dead, id)
  count_letter(reasons, letter, -1)
  if redis.call('EXISTS', dead) == 0 then redis.call('DEL', reasons) end -- whatever was miscounted ends here
  write_audit(audit, id, letter, by, outcome)
  return true
end

-- These letters go. Answers, for each, 1 if it was there.
local function discard_dead_letters(keys, args)
  local there = {}
  for i = 1, #args.ids do
    there[i] = remove_letter(keys.dead_letters, keys.dead_letter_index, keys.dead_letter_reasons, keys.dead_letter_audit,
      args.ids[i], args.by, args.outcome) and 1 or 0
  end
  return there
end

-- Puts a letter aside that no lane's commit does. Put aside again it is as it was.
local function add_dead_letter(keys, args)
  add_letter(keys.dead_letters, keys.dead_letter_index, keys.dead_letter_reasons, clock(), args.id, args.content)
  return 1
end

register('add_dead_letter', add_dead_letter, {'allow-oom'})
register('discard_dead_letters', discard_dead_letters, {'allow-oom'})
