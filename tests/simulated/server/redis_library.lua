-- What a library of server-side functions sees of its server, on a plain Lua 5.1: `redis`, `pcall` as Valkey has it, protected
-- globals; and how a function is called by Python, and answers it. `host` is Python: it answers a command, given as words.
--
-- Between the two go flat values alone, as many arguments and results: a table of Python's would cost more than a command.
-- To Lua: one plain value; or true and the elements of a list; or nil, 'ok' or 'err', and a text; or nil, 'table', a table.
-- To Python: string, number; false for nothing; true, a count, and so many values; nil, 'err', and a text.

local host, cmsgpack, cjson = ...

local MOST = 7000 -- values at once: Lua has room for 8000
local FLAGS = {
  ['no-writes'] = true, ['allow-oom'] = true, ['allow-stale'] = true, ['no-cluster'] = true,
  ['allow-cross-slot-keys'] = true,
}
local DETAILS = {function_name = true, callback = true, flags = true, description = true}
local OTHER_REPLIES = { -- of RESP3
  double = 'number', map = 'table', set = 'table', big_number = 'string', verbatim_string = 'table',
}

-- Commands

local function unusual(raises, kind, value)
  if kind == 'ok' then return {ok = value} end
  if kind == 'table' then return value end
  local failed = {err = value}
  if raises then error(failed) end
  return failed
end

local function called(first, ...)
  if first == true then return {...} end
  if first == nil then return unusual(true, ...) end
  return first
end

local function tried(first, ...)
  if first == true then return {...} end
  if first == nil then return unusual(false, ...) end
  return first
end

local redis = {}

function redis.call(...) return called(host(...)) end

function redis.pcall(...) return tried(host(...)) end

function redis.status_reply(text) return {ok = text} end

function redis.error_reply(text)
  if string.sub(text, 1, 1) == '-' then text = string.sub(text, 2) end
  return {err = string.find(text, ' ', 1, true) and text or 'ERR ' .. text}
end

-- Globals

local function caught(done, failed, ...)
  if not done and type(failed) == 'table' and type(failed.err) == 'string' then return false, failed.err end
  return done, failed, ...
end

local function valkey_pcall(called_function, ...) return caught(pcall(called_function, ...)) end

local lua_math = {}
for name, value in pairs(math) do lua_math[name] = value end
lua_math.random, lua_math.randomseed = nil, nil

local globals = {
  _VERSION = _VERSION, assert = assert, error = error, getmetatable = getmetatable, ipairs = ipairs, loadstring = loadstring,
  next = next, pairs = pairs, pcall = valkey_pcall, rawequal = rawequal, rawget = rawget, rawset = rawset, select = select,
  setmetatable = setmetatable, tonumber = tonumber, tostring = tostring, type = type, unpack = unpack, xpcall = xpcall,
  string = string, table = table, math = lua_math, redis = redis, server = redis, cjson = cjson, cmsgpack = cmsgpack,
}

local function no_such_global(_, name)
  error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", 2)
end

setmetatable(globals, {
  __index = no_such_global,
  __newindex = function() error('Attempt to modify a readonly table', 2) end,
})

-- Libraries

local registered

local function register_function(...)
  local first, callback = ...
  local details = type(first) == 'table' and first or {function_name = first, callback = callback}
  for name in pairs(details) do
    if not DETAILS[name] then error({err = 'ERR unknown argument given to server.register_function'}) end
  end
  for _, flag in ipairs(details.flags or {}) do
    if not FLAGS[flag] then error({err = 'ERR unknown flag given'}) end
  end
  if registered[details.function_name] then error({err = 'ERR Function already exists in the library'}) end
  registered[details.function_name] = true
  registered[#registered + 1] = details.function_name
  registered[#registered + 1] = details.callback
  registered[#registered + 1] = table.concat(details.flags or {}, ' ')
end

-- While a library is loaded, `redis` has this alone.
local loading_redis = setmetatable({register_function = register_function}, {__index = no_such_global})

local api = {}

-- Compiles the text of a library. Answers its chunk, or nil and why not.
function api.compile(text) return loadstring(text, '@user_function') end

-- Loads a library anew, which was compiled. Answers names, callbacks and flags, one after the other; or nil and why not.
function api.load(chunk)
  registered = {}
  rawset(globals, 'redis', loading_redis)
  rawset(globals, 'server', loading_redis)
  local done, failed = pcall(setfenv(chunk, globals))
  rawset(globals, 'redis', redis)
  rawset(globals, 'server', redis)
  if done then return unpack(registered) end
  return nil, type(failed) == 'table' and failed.err or 'ERR ' .. tostring(failed)
end

-- Calls

local pending
local flat, filled

local function put(value)
  local kind = type(value)
  if kind == 'string' then
    filled = filled + 1
    flat[filled] = value
  elseif kind == 'number' then
    filled = filled + 1
    flat[filled] = value < 0 and math.ceil(value) or math.floor(value)
  elseif kind == 'boolean' then
    filled = filled + 1
    flat[filled] = value and 1
  elseif kind ~= 'table' then
    filled = filled + 1
    flat[filled] = false
  else
    local failed = rawget(value, 'err')
    if type(failed) == 'string' then
      flat[filled + 2], flat[filled + 3] = 'err', failed
      filled = filled + 3
      return
    end
    local said = rawget(value, 'ok')
    if type(said) == 'string' then return put(said) end
    for name, wanted in pairs(OTHER_REPLIES) do
      if type(rawget(value, name)) == wanted then error('no reply of RESP3 is modelled: ' .. name) end
    end
    local head, count = filled + 1, 0
    flat[head] = true
    filled = filled + 2
    while value[count + 1] ~= nil do
      count = count + 1
      put(value[count])
    end
    flat[head + 1] = count
  end
end

-- The error as a table, with the line of the library on which it was raised.
local function located(failed)
  if type(failed) ~= 'table' then failed = {err = 'ERR ' .. tostring(failed)} end
  local level, found = 2, nil
  repeat
    found = debug.getinfo(level, 'Sl')
    level = level + 1
  until not found or found.source == '@user_function'
  if found then failed.source, failed.line = found.source, found.currentline end
  return failed
end

-- Takes words of a call that is too long for one.
function api.gather(...)
  pending = pending or {}
  api.extend(pending, ...)
end

-- Answers the reply, flat; or nil, 'raised' and the error; or nil, 'long' and how much there is to fetch.
function api.invoke(callback, number_of_keys, ...)
  local words = pending or {...}
  pending = nil
  local keys, args = {}, {}
  for i = 1, number_of_keys do keys[i] = words[i] end
  for i = number_of_keys + 1, #words do args[i - number_of_keys] = words[i] end
  local done, answer = xpcall(function() return callback(keys, args) end, located)
  if not done then
    local place = answer.source and ' script: on ' .. answer.source .. ':' .. answer.line .. '.' or ''
    return nil, 'raised', (type(answer.err) == 'string' and answer.err or 'ERR unknown error') .. place
  end
  flat, filled = {}, 0
  put(answer)
  if filled <= MOST then return unpack(flat, 1, filled) end
  return nil, 'long', filled
end

function api.fetch(from, to) return unpack(flat, from, to) end

function api.table_of(...) return {...} end

function api.extend(grown, ...)
  local at, values = #grown, {...}
  for i = 1, select('#', ...) do grown[at + i] = values[i] end
end

return api
