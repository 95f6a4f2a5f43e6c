-- A command makes one call of a function, or several: of one moment all of them, and bells are rung at its end, for all at once.

local MOST_RINGS = 1000   -- of one ZADD

local moment              -- of this command, ms
local bells_database      -- where this command rings; '' if it does not
local rings               -- whom it rings for, by bell

local function begin_command()
  moment, bells_database, rings = nil, '', {}
end

local function clock()
  if not moment then
    local t = redis.call('TIME')
    moment = t[1] * 1000 + math.floor(t[2] / 1000)
  end
  return moment
end

local function ring_in(database)
  bells_database = database
end

local function note_ring(bell, sender)
  local senders = rings[bell] or {}
  senders[#senders + 1], rings[bell] = sender, senders
end

-- A bell is a set in the order of first ringing: a lane that is rung for twice before anyone comes is woken once. Answers
-- how many were new.
local function ring_bell(bell, senders)
  local now, new = ms(clock()), 0
  for first = 1, #senders, MOST_RINGS do
    local words = {}
    for i = first, math.min(first + MOST_RINGS - 1, #senders) do
      words[#words + 1] = now
      words[#words + 1] = senders[i]
    end
    new = new + redis.call('ZADD', bell, 'NX', unpack(words))
  end
  return new
end

local function ring_bells()
  for bell, senders in pairs(rings) do ring_bell(bell, senders) end
end

-- Rings, where the bells lie in a database of this very server. Answers whether that is done; else whoever called does it. What
-- follows in a command, it does in that database: so this ends it.
local function ring_here()
  if bells_database == '' or redis.pcall('SELECT', bells_database).err then return false end
  return (pcall(ring_bells))
end

-- The answer that is an error, as which something was raised.
local function error_answer(raised)
  local text = type(raised) == 'table' and raised.err or tostring(raised)
  return {err = string.find(text, '^%u+ ') and text or 'ERR ' .. text}
end

local function alone(callback)
  return function(keys, args)
    begin_command()
    local answer, forget_whom_to_wake = callback(keys, args)
    if forget_whom_to_wake and ring_here() then forget_whom_to_wake() end
    return answer
  end
end

-- Makes several calls of a function: ARGV has for each how many KEYS and how many ARGV are its own, and then these. Answers what
-- each answers; an error is one call's, and the others are made.
local function joined(callback)
  return function(all_keys, all_args)
    begin_command()
    local answers, to_wake, k, a = {}, {}, 0, 0
    while a < #all_args do
      local keys, args = {}, {}
      for i = 1, all_args[a + 1] do keys[i] = all_keys[k + i] end
      for i = 1, all_args[a + 2] do args[i] = all_args[a + 2 + i] end
      k, a = k + #keys, a + 2 + #args
      local done, answer, forget_whom_to_wake = pcall(callback, keys, args)
      if not done then answer = error_answer(answer) end
      answers[#answers + 1], to_wake[#to_wake + 1] = answer or false, forget_whom_to_wake
    end
    if #to_wake > 0 and ring_here() then
      for _, forget_whom_to_wake in ipairs(to_wake) do forget_whom_to_wake() end
    end
    return answers
  end
end

-- A callback answers and, if it has noted rings, returns what takes out of its answer whom to wake. Only what takes in more is
-- refused when the memory is full; the rest is what empties it: 'allow-oom'.
local function register(name, callback, flags)
  redis.register_function{function_name = '@library@_' .. name, callback = alone(callback), flags = flags}
  if JOINED[name] then
    redis.register_function{function_name = '@library@_joined_' .. name, callback = joined(callback), flags = flags}
  end
end
