-- Who tells an endpoint of what happens, and how far it is.
--
-- A position that a process has in mind is good on the server that it was read from: one that was promoted may lack the entry,
-- and have given its id to another. What is stored there is of its stream, since both are replicated in order. So a lease is
-- of a server too, and whoever has it from another loses it, and reads anew how far the endpoint is.
--
--   lease         as a lane's lock: the fencing token of the process that has the endpoint, until when, and who it is, with the
--                 server behind a semicolon
--   positions     shard -> the id of the last entry that the endpoint needs no more
--   circuit       how the endpoint does of late (workers/hooks/circuit.py)

-- Whether a lease is good on this server: one that was only started again is the same to it, as it has what it acknowledged.
local function is_from_here(lease, now)
  return string.match(lease.owner, ';(.*)$') == this_server(now) or not was_promoted()
end

-- The lease, and whether it holds: one that ends later than a lease can is of a clock that was set back, and ends then.
local function read_hook_lease(key, now, lease_ms)
  local lease = read_lock(key)
  if lease and lease.till > now + lease_ms then lease.till = now + lease_ms end
  return lease
end

-- Answers {fencing token, now} if the endpoint is the owner's, whose it was or whom nobody has, else {0, now}. Who had it in
-- another's name before gets another token, and so does who had it on a server that this one was promoted after. The same
-- owner asking again has the same, for longer.
local function take_hook(keys, args)
  local now, lease_ms = clock(), tonumber(args.lease_ms)
  local lease = read_hook_lease(keys.lease, now, lease_ms)
  local owner = args.owner .. ';' .. this_server(now)
  local is_others = lease and string.match(lease.owner, '^[^;]*') ~= args.owner
  local mine = lease and not is_others and is_from_here(lease, now)
  if is_others and lease.till > now then return {0, now} end
  local token = mine and lease.fence or new_fences(keys.fence, now, 1)
  write_lock(keys.lease, now, {fence = token, till = now + lease_ms, attempts = 0, since = now, owner = owner})
  return {token, now}
end

-- Answers 1, or 0 if the lease is another's by now, or of another server, or the positions were put elsewhere: then nothing
-- has changed.
local function move_hook(keys, args)
  local now = clock()
  local lease = read_lock(keys.lease)
  if not lease or lease.fence ~= tonumber(args.token) then return 0 end
  if not is_from_here(lease, now) then return 0 end
  lease.till = now + tonumber(args.lease_ms)
  write_lock(keys.lease, now, lease)
  for i = 1, #args.moves do redis.call('HSET', keys.positions, args.moves[i].shard, args.moves[i].entry_id) end
  if args.circuit_state == '' then
    redis.call('DEL', keys.circuit)
  else
    redis.call('SET', keys.circuit, args.circuit_state)
  end
  return 1
end

local function release_hook(keys, args)
  local lease = read_lock(keys.lease)
  if lease and lease.fence == tonumber(args.token) then redis.call('DEL', keys.lease) end
  return 1
end

-- The positions are elsewhere now, and whoever has the endpoint has lost it: what it was about to move it moves no more.
local function rewind_hook(keys, args)
  for i = 1, #args.moves do redis.call('HSET', keys.positions, args.moves[i].shard, args.moves[i].entry_id) end
  redis.call('DEL', keys.lease, keys.circuit)
  return 1
end

register('take_hook', take_hook, {'allow-oom'})
register('move_hook', move_hook, {'allow-oom'})
register('release_hook', release_hook, {'allow-oom'})
register('rewind_hook', rewind_hook, {'allow-oom'})
