-- `cjson`, as Valkey's Lua has it: what it writes, what it reads, and what it says of what it cannot.

local MOST_DEPTH = 1000
local ESCAPES = {['"'] = '\\"', ['\\'] = '\\\\', ['/'] = '\\/', ['\b'] = '\\b', ['\t'] = '\\t', ['\n'] = '\\n',
  ['\f'] = '\\f', ['\r'] = '\\r', ['\127'] = '\\u007f'}
local UNESCAPED = {['"'] = '"', ['\\'] = '\\', ['/'] = '/', b = '\b', t = '\t', n = '\n', f = '\f', r = '\r'}
local SIGNS = {['{'] = 'T_OBJ_BEGIN', ['}'] = 'T_OBJ_END', ['['] = 'T_ARR_BEGIN', [']'] = 'T_ARR_END', [':'] = 'T_COLON',
  [','] = 'T_COMMA'}
local WORDS = {{'true', 'T_BOOLEAN', true}, {'false', 'T_BOOLEAN', false}, {'null', 'T_NULL'}}

for code = 0, 31 do
  local sign = string.char(code)
  ESCAPES[sign] = ESCAPES[sign] or string.format('\\u%04x', code)
end

local cjson = {null = newproxy()}

-- Encoding

local function refuse(kind, why) error('Cannot serialise ' .. kind .. ': ' .. why, 0) end

local function text_of(value)
  return '"' .. string.gsub(value, '[%z\1-\31"\\/\127]', ESCAPES) .. '"'
end

local function number_of(value)
  if value ~= value or value == math.huge or value == -math.huge then refuse('number', 'must not be NaN or Inf') end
  return string.format('%.14g', value)
end

-- How long the array is that a table is; -1 if it is none.
local function array_length(value)
  local most, items = 0, 0
  for key in pairs(value) do
    if type(key) ~= 'number' or key < 1 or key ~= math.floor(key) then return -1 end
    if key > most then most = key end
    items = items + 1
  end
  if most > items * 2 and most > 10 then refuse('table', 'excessively sparse array') end
  return most
end

local function put(out, value, depth)
  local kind = type(value)
  if kind == 'string' then
    out[#out + 1] = text_of(value)
  elseif kind == 'number' then
    out[#out + 1] = number_of(value)
  elseif kind == 'boolean' then
    out[#out + 1] = tostring(value)
  elseif value == nil or value == cjson.null then
    out[#out + 1] = 'null'
  elseif kind ~= 'table' then
    refuse(kind, 'type not supported')
  else
    depth = depth + 1
    if depth > MOST_DEPTH then error('Cannot serialise, excessive depth (' .. depth .. ')', 0) end
    local length, between = array_length(value), ''
    if length > 0 then
      out[#out + 1] = '['
      for at = 1, length do
        out[#out + 1] = between
        put(out, value[at], depth)
        between = ','
      end
      out[#out + 1] = ']'
    else
      out[#out + 1] = '{'
      for key, element in pairs(value) do
        out[#out + 1] = between
        if type(key) == 'number' then
          out[#out + 1] = '"' .. number_of(key) .. '":'
        elseif type(key) == 'string' then
          out[#out + 1] = text_of(key) .. ':'
        else
          refuse(type(key), 'table key must be a number or string')
        end
        put(out, element, depth)
        between = ','
      end
      out[#out + 1] = '}'
    end
  end
end

local function encode(...)
  if select('#', ...) ~= 1 then error("bad argument #1 to 'encode' (expected 1 argument)", 0) end
  local value = ...
  local out = {}
  put(out, value, 0)
  return table.concat(out)
end

-- Decoding. A token is its kind, its value, where it begins, and where the next one may; of an error, the value says which.

local function utf8(code)
  local char, floor = string.char, math.floor
  if code < 0x80 then return char(code) end
  if code < 0x800 then return char(0xc0 + floor(code / 64), 0x80 + code % 64) end
  if code < 0x10000 then return char(0xe0 + floor(code / 4096), 0x80 + floor(code / 64) % 64, 0x80 + code % 64) end
  return char(0xf0 + floor(code / 262144), 0x80 + floor(code / 4096) % 64, 0x80 + floor(code / 64) % 64, 0x80 + code % 64)
end

-- The code point of the escape at `at`, and how long that is; nil if it is none.
local function unicode(text, at)
  local digits = string.match(text, '^\\u(%x%x%x%x)', at)
  local code = digits and tonumber(digits, 16)
  if not code or code < 0xd800 or code > 0xdfff then return code, 6 end
  local more = string.match(text, '^\\u(%x%x%x%x)', at + 6)
  local low = more and tonumber(more, 16)
  if code >= 0xdc00 or not low or low < 0xdc00 or low > 0xdfff then return nil end
  return (code - 0xd800) * 1024 + low - 0xdc00 + 0x10000, 12
end

local function string_token(text, first)
  local parts, at = {}, first + 1
  while true do
    local upto = string.find(text, '["\\%z]', at)
    if not upto then return 'T_ERROR', 'unexpected end of string', #text + 1 end
    parts[#parts + 1] = string.sub(text, at, upto - 1)
    local sign = string.sub(text, upto, upto)
    if sign == '"' then return 'T_STRING', table.concat(parts), first, upto + 1 end
    if sign == '\0' then return 'T_ERROR', 'unexpected end of string', upto end
    local escaped = string.sub(text, upto + 1, upto + 1)
    if escaped == 'u' then
      local code, length = unicode(text, upto)
      if not code then return 'T_ERROR', 'invalid unicode escape code', upto end
      parts[#parts + 1], at = utf8(code), upto + length
    elseif UNESCAPED[escaped] then
      parts[#parts + 1], at = UNESCAPED[escaped], upto + 2
    else
      return 'T_ERROR', 'invalid escape code', upto
    end
  end
end

-- As C's strtod reads: as much as is a number.
local function number_token(text, first)
  local sign, after = string.match(text, '^([+-]?)()', first)
  local word = string.lower(string.sub(text, after, after + 7))
  local value, length
  if string.sub(word, 1, 3) == 'inf' then
    value, length = math.huge, word == 'infinity' and 8 or 3
  elseif string.sub(word, 1, 3) == 'nan' then
    value, length = -(0 / 0), 3 -- C's sign of it
  else
    local digits = string.match(text, '^0[xX]%x+', after) or string.match(text, '^%d+%.?%d*', after)
      or string.match(text, '^%.%d+', after)
    if not digits then return 'T_ERROR', 'invalid number', first end
    if not string.find(digits, '^0[xX]') then
      digits = digits .. (string.match(text, '^[eE][+-]?%d+', after + #digits) or '')
    end
    value, length = tonumber(digits), #digits
  end
  return 'T_NUMBER', sign == '-' and -value or value, first, after + length
end

local function token(text, at)
  local first = string.find(text, '[^ \t\n\r]', at)
  if not first then return 'T_END', nil, #text + 1 end
  local sign = string.sub(text, first, first)
  if SIGNS[sign] then return SIGNS[sign], nil, first, first + 1 end
  if sign == '"' then return string_token(text, first) end
  if sign == '\0' then return 'T_END', nil, first end
  if string.find(sign, '[-%d]') then return number_token(text, first) end
  for _, word in ipairs(WORDS) do
    if string.sub(text, first, first + #word[1] - 1) == word[1] then
      return word[2], word[3], first, first + #word[1]
    end
  end
  local word = string.lower(string.sub(text, first, first + 2))
  if sign == '+' or word == 'inf' or word == 'nan' then return number_token(text, first) end
  return 'T_ERROR', 'invalid token', first
end

local function unexpected(expected, kind, value, at)
  local found = kind == 'T_ERROR' and value or kind
  error('Expected ' .. expected .. ' but found ' .. found .. ' at character ' .. at, 0)
end

local take

local function descend(depth, at)
  if depth > MOST_DEPTH then
    error('Found too many nested data structures (' .. depth .. ') at character ' .. at - 1, 0)
  end
end

local function take_object(text, at, depth)
  descend(depth, at)
  local object = {}
  local kind, value, first, after = token(text, at)
  if kind == 'T_OBJ_END' then return object, after end
  while true do
    if kind ~= 'T_STRING' then unexpected('object key string', kind, value, first) end
    local key = value
    kind, value, first, after = token(text, after)
    if kind ~= 'T_COLON' then unexpected('colon', kind, value, first) end
    object[key], after = take(text, depth, token(text, after))
    kind, value, first, after = token(text, after)
    if kind == 'T_OBJ_END' then return object, after end
    if kind ~= 'T_COMMA' then unexpected('comma or object end', kind, value, first) end
    kind, value, first, after = token(text, after)
  end
end

local function take_array(text, at, depth)
  descend(depth, at)
  local array, count = {}, 0
  local kind, value, first, after = token(text, at)
  if kind == 'T_ARR_END' then return array, after end
  while true do
    count = count + 1
    array[count], after = take(text, depth, kind, value, first, after)
    kind, value, first, after = token(text, after)
    if kind == 'T_ARR_END' then return array, after end
    if kind ~= 'T_COMMA' then unexpected('comma or array end', kind, value, first) end
    kind, value, first, after = token(text, after)
  end
end

function take(text, depth, kind, value, first, after)
  if kind == 'T_STRING' or kind == 'T_NUMBER' or kind == 'T_BOOLEAN' then return value, after end
  if kind == 'T_NULL' then return cjson.null, after end
  if kind == 'T_OBJ_BEGIN' then return take_object(text, after, depth + 1) end
  if kind == 'T_ARR_BEGIN' then return take_array(text, after, depth + 1) end
  unexpected('value', kind, value, first)
end

local function decode(text)
  if type(text) == 'number' then text = tostring(text) end
  if type(text) ~= 'string' then
    error("bad argument #1 to '?' (string expected, got " .. (text == nil and 'no value' or type(text)) .. ')', 0)
  end
  if string.find(text, '^%z.') or string.find(text, '^.%z') then
    error('JSON parser does not support UTF-16 or UTF-32', 0)
  end
  local value, after = take(text, 0, token(text, 1))
  local kind, found, first = token(text, after)
  if kind ~= 'T_END' then unexpected('the end', kind, found, first) end
  return value
end

-- What is wrong is told from where a function was called, as C's functions tell it.
local function located(code)
  return function(...)
    local done, answer = pcall(code, ...)
    if not done then error(answer, 2) end
    return answer
  end
end

cjson.encode, cjson.decode = located(encode), located(decode)

return cjson
