-- A command makes one call of a function, or several: of one moment all of them, and bells are rung at its end, for all at once.

local MOST_RINGS = 1000   -- of one ZADD

local moment              -- of this command, ms
local rings               -- of this command: senders by bell, by the database of the bells

local function begin_command()
  moment, rings = nil, {}
end

local function clock()
  if not moment then
    local t = redis.call('TIME')
    moment = t[1] * 1000 + math.floor(t[2] / 1000)
  end
  return moment
end

-- Has a bell rung for a sender at the end, if it lies in a `database` of this very server; '' if not.
local function note_ring(database, bell, sender)
  if database == '' then return end
  local bells = rings[database] or {}
  local senders = bells[bell] or {}
  senders[#senders + 1], bells[bell], rings[database] = sender, senders, bells
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

local function ring_noted()
  for database, bells in pairs(rings) do
    redis.call('SELECT', database)
    for bell, senders in pairs(bells) do ring_bell(bell, senders) end
  end
end

-- Rings as was noted, after which a command is in another database. `forgets` take out of answers whom to wake; if it cannot ring,
-- whoever called wakes them.
local function end_command(forgets)
  if #forgets > 0 and pcall(ring_noted) then
    for _, forget in ipairs(forgets) do forget() end
  end
end

-- The answer that is an error, as which something was raised.
local function error_answer(raised)
  local text = type(raised) == 'table' and raised.err or tostring(raised)
  return {err = string.find(text, '^%u+ ') and text or 'ERR ' .. text}
end

local function alone(callback)
  return function(keys, args)
    begin_command()
    local answer, forget = callback(keys, args)
    end_command({forget})
    return answer
  end
end

-- Makes several calls of a function: ARGV has for each how many KEYS and how many ARGV are its own, and then these. Answers what
-- each answers; an error is one call's, and the others are made.
local function joined(callback)
  return function(all_keys, all_args)
    begin_command()
    local answers, forgets, k, a = {}, {}, 0, 0
    while a < #all_args do
      local keys, args = {}, {}
      for i = 1, all_args[a + 1] do keys[i] = all_keys[k + i] end
      for i = 1, all_args[a + 2] do args[i] = all_args[a + 2 + i] end
      k, a = k + #keys, a + 2 + #args
      local done, answer, forget = pcall(callback, keys, args)
      if not done then answer = error_answer(answer) end
      answers[#answers + 1], forgets[#forgets + 1] = answer or false, forget
    end
    end_command(forgets)
    return answers
  end
end

-- A callback returns its answer and, if it has noted rings, a function that takes out of the answer whom to wake. Only what takes
-- in more is refused when the memory is full; the rest is what empties it: 'allow-oom'.
local function register(name, callback, flags)
  redis.register_function{function_name = '@library@_' .. name, callback = alone(callback), flags = flags}
  if JOINED[name] then
    redis.register_function{function_name = '@library@_joined_' .. name, callback = joined(callback), flags = flags}
  end
end
