-- Envoy's Lua API as its documentation has it, and no friendlier: handles die at every yield, respond() works on
-- the way in only and ends the script, headers cannot change while they are iterated, and what does not exist is
-- an error.

local generation = 0

-- An object whose methods work until the next yield.
local function handle(methods, kind)
  local born = generation
  return setmetatable({}, {
    __index = function(_, name)
      local method = methods[name]
      if not method then
        error(kind .. " has no " .. tostring(name))
      end
      return function(...)
        if born ~= generation then
          error("object used outside of proper scope")
        end
        return method(...)
      end
    end,
    __newindex = function()
      error(kind .. " is userdata")
    end,
    __pairs = methods.__pairs,
  })
end

local function yielded(what)
  generation = generation + 1
  local got = coroutine.yield(what)
  generation = generation + 1
  return got
end

-- Lua 5.1 has no __pairs; Envoy builds LuaJIT with what 5.2 has.
local plain_pairs = pairs
function pairs(object)
  local meta = getmetatable(object)
  if meta and meta.__pairs then
    return meta.__pairs(object)
  end
  return plain_pairs(object)
end

-- `list` is a list of {name, value}, names in lower case, in order.
local function headers_of(list)
  local iterating = false
  local function may_change()
    if iterating then
      error("header map cannot be modified while iterating")
    end
  end
  local methods = {}
  function methods.get(_, name)
    assert(type(name) == "string")
    local found = {}
    for _, pair in ipairs(list) do
      if pair[1] == name:lower() then
        found[#found + 1] = pair[2]
      end
    end
    return found[1] and table.concat(found, ",") or nil
  end
  function methods.remove(_, name)
    may_change()
    for i = #list, 1, -1 do
      if list[i][1] == name:lower() then
        table.remove(list, i)
      end
    end
  end
  function methods.add(_, name, value)
    may_change()
    assert(type(name) == "string" and type(value) == "string", "headers are strings")
    list[#list + 1] = { name:lower(), value }
  end
  function methods.replace(self, name, value)
    assert(type(value) == "string", "headers are strings")
    methods.remove(self, name)
    methods.add(self, name, value)
  end
  function methods.__pairs()
    iterating = true
    local i = 0
    return function()
      i = i + 1
      if not list[i] then
        iterating = false
        return nil
      end
      return list[i][1], list[i][2]
    end
  end
  return handle(methods, "headers")
end

local function buffer_of(text, broken)
  local methods = {}
  function methods.length()
    return #text
  end
  function methods.getBytes(_, from, length)
    if broken then
      error("broken getBytes")
    end
    assert(from >= 0 and length >= 0 and from + length <= #text, "index and length must be in the buffer")
    return text:sub(from + 1, from + length)
  end
  return handle(methods, "buffer")
end

local function stream_info_of(metadata)
  local dynamic = {}
  function dynamic.get(_, namespace)
    local copy = metadata[namespace] and {} or nil
    for key, value in plain_pairs(metadata[namespace] or {}) do
      copy[key] = value
    end
    return copy
  end
  function dynamic.set(_, namespace, key, value)
    local kind = type(value)
    assert(type(namespace) == "string" and type(key) == "string", "namespace and key are strings")
    assert(kind == "string" or kind == "number" or kind == "boolean", "cannot store a " .. kind)
    metadata[namespace] = metadata[namespace] or {}
    metadata[namespace][key] = value
  end
  local methods = {}
  function methods.dynamicMetadata()
    return handle(dynamic, "dynamicMetadata")
  end
  return handle(methods, "streamInfo")
end

-- The stream's own handle lives on over yields. `broken` names methods that raise, as a defect would.
local function stream_of(stream, on_request)
  local methods, begun = {}, false
  local function begin_body()
    if begun then
      error("the body has begun already")
    end
    begun = true
  end
  function methods.headers()
    return headers_of(stream.headers)
  end
  function methods.streamInfo()
    return stream_info_of(stream.metadata)
  end
  function methods.body()
    begin_body()
    if #stream.chunks == 0 then
      return nil
    end
    yielded("body")
    stream.buffered = true
    return buffer_of(table.concat(stream.chunks))
  end
  function methods.bodyChunks()
    begin_body()
    local i = 0
    return function()
      if i == #stream.chunks then
        if stream.cut then
          coroutine.yield("cut")
        end
        return nil
      end
      i = i + 1
      yielded("chunk")
      stream.seen = i
      if stream.watched then
        collectgarbage("collect")
        stream.most = math.max(stream.most or 0, collectgarbage("count"))
        stream.least = math.min(stream.least or math.huge, collectgarbage("count"))
      end
      return buffer_of(stream.chunks[i], i == stream.broken_chunk)
    end
  end
  function methods.respond(_, headers, text)
    assert(on_request, "respond() not currently supported in the response path")
    assert(headers[":status"] and type(text) == "string")
    stream.reply = { headers = headers, text = text }
    coroutine.yield("respond")
  end
  return setmetatable({}, {
    __index = function(_, name)
      if stream.broken[name] then
        error("broken " .. name)
      end
      return methods[name] or error("the stream has no " .. tostring(name))
    end,
  })
end

-- Runs one entry point over a stream {headers, chunks, metadata, cut, broken, broken_chunk, watched}. Returns nil,
-- or the error that Envoy would count; the stream says the rest.
local function run(entry, stream, on_request)
  generation = generation + 1
  local script = coroutine.create(entry)
  local ok, what = coroutine.resume(script, stream_of(stream, on_request))
  while ok and (what == "body" or what == "chunk") and coroutine.status(script) == "suspended" do
    ok, what = coroutine.resume(script)
  end
  generation = generation + 1
  return not ok and tostring(what) or nil
end

-- The text in chunks of one size.
local function cut_up(text, size)
  local chunks = {}
  for from = 1, #text, size do
    chunks[#chunks + 1] = text:sub(from, from + size - 1)
  end
  return chunks
end

return { run = run, cut_up = cut_up }
