-- `cmsgpack`, as Valkey's Lua has it, byte for byte. `pack_double` and `unpack_double` are Python's: a float or a double.

local pack_double, unpack_double = ...

local MOST_NESTING = 16
local WORD = 4294967296 -- 2^32

local byte, char, sub, floor = string.byte, string.char, string.sub, math.floor

local function big_endian(n, size)
  local bytes = {}
  for at = size, 1, -1 do
    bytes[at] = char(n % 256)
    n = floor(n / 256)
  end
  return table.concat(bytes)
end

-- Two words: a double has no more than 53 bits.
local function eight_bytes(n)
  local high = floor(n / WORD)
  return big_endian(high % WORD, 4) .. big_endian(n - high * WORD, 4)
end

local function pack_integer(n)
  if n >= 0 then
    if n <= 127 then return char(n) end
    if n <= 0xff then return '\204' .. char(n) end
    if n <= 0xffff then return '\205' .. big_endian(n, 2) end
    if n < WORD then return '\206' .. big_endian(n, 4) end
    return '\207' .. eight_bytes(n)
  end
  if n >= -32 then return char(256 + n) end
  if n >= -128 then return '\208' .. char(256 + n) end
  if n >= -32768 then return '\209' .. big_endian(65536 + n, 2) end
  if n >= -2147483648 then return '\210' .. big_endian(WORD + n, 4) end
  return '\211' .. eight_bytes(n)
end

local function is_int64(n)
  return n == floor(n) and n >= -9223372036854775808 and n < 9223372036854775808
end

local function head(n, short, short_most, bytes_1, bytes_2, bytes_4)
  if n <= short_most then return char(short + n) end
  if bytes_1 and n <= 0xff then return bytes_1 .. char(n) end
  if n <= 0xffff then return bytes_2 .. big_endian(n, 2) end
  return bytes_4 .. big_endian(n, 4)
end

-- Whether all keys are 1, 2, ... up to their number.
local function is_array(value)
  local count, most = 0, 0
  for key in pairs(value) do
    if type(key) ~= 'number' or key <= 0 or key ~= floor(key) then return false end
    if key > most then most = key end
    count = count + 1
  end
  return most == count
end

local function put(out, value, level)
  local kind = type(value)
  if kind == 'table' and level == MOST_NESTING then kind = 'nil' end
  if kind == 'string' then
    out[#out + 1] = head(#value, 0xa0, 31, '\217', '\218', '\219')
    out[#out + 1] = value
  elseif kind == 'boolean' then
    out[#out + 1] = value and '\195' or '\194'
  elseif kind == 'number' then
    out[#out + 1] = is_int64(value) and pack_integer(value) or pack_double(value)
  elseif kind ~= 'table' then
    out[#out + 1] = '\192'
  elseif is_array(value) then
    out[#out + 1] = head(#value, 0x90, 15, nil, '\220', '\221')
    for at = 1, #value do put(out, value[at], level + 1) end
  else
    local count = 0
    for _ in pairs(value) do count = count + 1 end
    out[#out + 1] = head(count, 0x80, 15, nil, '\222', '\223')
    for key, element in pairs(value) do
      put(out, key, level + 1)
      put(out, element, level + 1)
    end
  end
end

local codec = {}

function codec.pack(...)
  local count = select('#', ...)
  if count == 0 then error("bad argument #0 to 'pack' (MessagePack pack needs input.)", 0) end
  local out = {}
  for at = 1, count do put(out, (select(at, ...)), 0) end
  return table.concat(out)
end

local function need(text, at, size)
  if at + size - 1 > #text then error('Missing bytes in input.', 0) end
end

local function unsigned(text, at, size)
  need(text, at, size)
  local n = 0
  for i = at, at + size - 1 do n = n * 256 + byte(text, i) end
  return n
end

-- Answers the value at `at`, and where the next one is.
local take

local function take_bytes(text, at, size)
  need(text, at, size)
  return sub(text, at, at + size - 1), at + size
end

local function take_array(text, at, count)
  local array = {}
  for i = 1, count do array[i], at = take(text, at) end
  return array, at
end

local function take_map(text, at, count)
  local map, key, value = {}, nil, nil
  for _ = 1, count do
    key, at = take(text, at)
    value, at = take(text, at)
    if key == nil then error('table index is nil', 0) end
    map[key] = value
  end
  return map, at
end

local function signed(n, size)
  return n >= 2 ^ (8 * size - 1) and n - 2 ^ (8 * size) or n
end

-- An int of 64 bits becomes a double at once, of its sign: Lua 5.1 has no unsigned one.
local function take_int64(text, at)
  local high, low = signed(unsigned(text, at, 4), 4), unsigned(text, at + 4, 4)
  return high * WORD + low, at + 8
end

local TAKERS = {
  [0xc0] = function(_, at) return nil, at end,
  [0xc2] = function(_, at) return false, at end,
  [0xc3] = function(_, at) return true, at end,
  [0xca] = function(text, at) return unpack_double((take_bytes(text, at, 4))), at + 4 end,
  [0xcb] = function(text, at) return unpack_double((take_bytes(text, at, 8))), at + 8 end,
  [0xcc] = function(text, at) return unsigned(text, at, 1), at + 1 end,
  [0xcd] = function(text, at) return unsigned(text, at, 2), at + 2 end,
  [0xce] = function(text, at) return unsigned(text, at, 4), at + 4 end,
  [0xcf] = take_int64,
  [0xd0] = function(text, at) return signed(unsigned(text, at, 1), 1), at + 1 end,
  [0xd1] = function(text, at) return signed(unsigned(text, at, 2), 2), at + 2 end,
  [0xd2] = function(text, at) return signed(unsigned(text, at, 4), 4), at + 4 end,
  [0xd3] = take_int64,
  [0xd9] = function(text, at) return take_bytes(text, at + 1, unsigned(text, at, 1)) end,
  [0xda] = function(text, at) return take_bytes(text, at + 2, unsigned(text, at, 2)) end,
  [0xdb] = function(text, at) return take_bytes(text, at + 4, unsigned(text, at, 4)) end,
  [0xdc] = function(text, at) return take_array(text, at + 2, unsigned(text, at, 2)) end,
  [0xdd] = function(text, at) return take_array(text, at + 4, unsigned(text, at, 4)) end,
  [0xde] = function(text, at) return take_map(text, at + 2, unsigned(text, at, 2)) end,
  [0xdf] = function(text, at) return take_map(text, at + 4, unsigned(text, at, 4)) end,
}

function take(text, at)
  local kind = byte(text, at)
  if not kind then error('Missing bytes in input.', 0) end
  at = at + 1
  if kind <= 0x7f then return kind, at end
  if kind >= 0xe0 then return kind - 256, at end
  if kind <= 0x8f then return take_map(text, at, kind - 0x80) end
  if kind <= 0x9f then return take_array(text, at, kind - 0x90) end
  if kind <= 0xbf then return take_bytes(text, at, kind - 0xa0) end
  local taker = TAKERS[kind]
  if not taker then error('Bad data format in input.', 0) end
  return taker(text, at)
end

function codec.unpack(text)
  local values, count, at = {}, 0, 1
  while at <= #text do
    count = count + 1
    values[count], at = take(text, at)
  end
  return unpack(values, 1, count)
end

-- Answers where the next value is, from 0, or -1; and the value.
function codec.unpack_one(text, offset)
  offset = offset or 0
  if offset < 0 then
    error('Invalid request to unpack with offset of ' .. offset .. ' and limit of ' .. #text .. '.', 0)
  elseif offset > #text then
    error('Start offset ' .. offset .. ' greater than input length ' .. #text .. '.', 0)
  elseif offset == #text then
    return -1
  end
  local value, at = take(text, offset + 1)
  return at > #text and -1 or at - 1, value
end

local function counted(...) return select('#', ...), {...} end

-- What is wrong is told from where a function was called, as C's functions tell it.
local function located(code)
  return function(...)
    local count, answers = counted(pcall(code, ...))
    if not answers[1] then error(answers[2], 2) end
    return unpack(answers, 2, count)
  end
end

return {pack = located(codec.pack), unpack = located(codec.unpack), unpack_one = located(codec.unpack_one)}
