-- Events that were applied and that no lane remembers: a lane has room for the latest only, and an erased person has none.
-- They are known by keyed hashes, from which neither a number nor an event can be read, until they are too old to be sent again.

-- `packed`: for each event 8 bytes of hash, and 13 digits of the ms at which it was applied.
local function remember_events(applied_events, packed, now, keep_ms)
  if packed == '' then return end
  for at = 1, #packed, 21 do
    redis.call('ZADD', applied_events, string.sub(packed, at + 8, at + 20), string.sub(packed, at, at + 7))
  end
  redis.call('ZREMRANGEBYSCORE', applied_events, '-inf', ms(now - keep_ms))
  redis.call('PEXPIRE', applied_events, ms(keep_ms))
end
