-- A table of people that is uploaded to the console. Who begins something with it claims it for some seconds (SET NX PX), by a token of
-- its own. Its rows lie in a list, many in each element.

-- Gives the claim back that was taken with this token: not the one of whoever took it after that was over.
local function release_upload(keys, args)
  if redis.call('GET', keys.claim) == args.token then redis.call('DEL', keys.claim) end
  return 1
end

-- Answers 1 if these rows lie there now, also if this very call has put them there before; 0 if others do, or none.
local function replace_upload_rows(keys, args)
  local there = redis.call('LINDEX', keys.table, args.at)
  if there == args.rows then return 1 end
  if there ~= args.before then return 0 end
  redis.call('LSET', keys.table, args.at, args.rows)
  return 1
end

register('release_upload', release_upload, {'allow-oom'})
register('replace_upload_rows', replace_upload_rows, {'allow-oom'})
