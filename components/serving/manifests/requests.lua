-- What the gateway does with requests and answers, in Envoy's Lua filter (LuaJIT 2.1, Envoy 1.38 and later).
--
-- On the way in: who asks, for which model, and whether that is allowed. On the way back: what it cost. Both
-- go to dynamic metadata `llmp`, which nothing but this program writes; the rate limit filter, the access log
-- and the shape of refusals read it. Nothing is remembered from one request to the next: every worker has an
-- environment of its own, so whatever were counted here would be counted once per worker.
--
-- Envoy's rules that shape this file (its documentation of the Lua filter):
--   * body() and bodyChunks() yield, and what headers() and streamInfo() gave before is dead afterwards;
--   * respond() works on the way in only, and nothing after it runs;
--   * an error lets the traffic through and counts in `lua.errors`: here one ends in 503 on the way in, and
--     after the charge on the way back.

local TABLES = {} -- @tables@

local NAMESPACE, KEYS = "llmp", "envoy.filters.http.jwt_authn"
local MODEL_HEADER = TABLES.model_header
local EXEMPT = TABLES.exempt
-- An answer up to this size is complete as soon as its headers are; holding it makes the headers exact. Behind a picker
-- answers do not say how long they are; JSON is complete then as well, and held whatever its size.
local SMALL = 16384
-- A picker takes messages of 4 MiB (gRPC's default, which the inference extension 1.5 keeps), and the gateway sends it what
-- it holds of a body as one message. Longer prompts, and those that do not say how long they are, pass it by.
local PICKED = 3145728
-- A usage object is some hundred bytes. One that is longer is none.
local CARRY = 8192
-- What one charge may carry (RateLimit.hits_addend), and what counts are trusted up to.
local MOST = 1e9
-- Multipliers come as millionths, so that prices are exact: 10 tokens at 1.1 are 11, not 11.000000000000002.
local MILLION = 1e6
-- Occurrences of "model" after which a body is read properly instead of searched.
local GLANCES = 32
-- Strings and braces that are read on the top level of a body, before a client is asked to use the header.
local STEPS = 1000000

local byte, char, find, gsub, lower = string.byte, string.char, string.find, string.gsub, string.lower
local match, sub, concat = string.match, string.sub, table.concat
local ceil, max, min = math.ceil, math.max, math.min
local QUOTE, BACKSLASH, OPEN, OPEN_LIST = 34, 92, 123, 91

----------------------------------------------------------------------------------------------------------
-- Tables, built once

local NAMES, BY_KEY, ROUTES, WORST = {}, {}, {}, MILLION

for _, model in ipairs(TABLES.models) do
  BY_KEY[model.key] = model
  WORST = max(WORST, model.price)
  for _, name in ipairs(model.names) do
    NAMES[name] = model
    -- Clients put names into paths as they are, or with the slash escaped.
    for _, written in ipairs({ name, (gsub(name, "/", "%%2F")), (gsub(name, "/", "%%2f")) }) do
      ROUTES["/v1/models/" .. written] = { kind = "show", method = "GET", model = model }
    end
  end
  for _, path in ipairs(TABLES.inference) do
    ROUTES[model.prefix .. path] = { kind = path, method = "POST", model = model }
  end
  for _, path in ipairs(TABLES.plain) do
    ROUTES[model.prefix .. path] = { kind = "plain", method = "GET", model = model }
  end
end
for _, path in ipairs(TABLES.inference) do
  ROUTES[path] = { kind = path, method = "POST" }
end
ROUTES["/v1/models"] = { kind = "list", method = "GET" }

local METERED = {}
for _, path in ipairs(TABLES.inference) do
  METERED[path] = true
end

-- Headers of a client that something behind would believe: this program, the endpoint picker (llm-d's and the
-- inference extension's), the engine, Envoy's router; whole families, x-<family>-*, since what they understand
-- grows. Envoy's own that matter are set after this. Credentials end here, and an answer must come
-- uncompressed to be read.
local STRIPPED = {
  ["accept-encoding"] = true,
  ["authorization"] = true,
  ["test-epp-endpoint-selection"] = true,
  ["x-avg-tpot-slo"] = true,
  ["x-session-token"] = true,
  ["x-tenant-id"] = true,
  ["x-ttft-slo"] = true,
}
local STRIPPED_FAMILIES = {
  data = true, -- x-data-parallel-host-port, x-data-parallel-rank
  encoder = true,
  envoy = true,
  gateway = true,
  inference = true,
  llm = true, -- x-llm-d-*
  maas = true,
  prefiller = true,
  requests = true,
  slo = true,
  tokens = true,
}

----------------------------------------------------------------------------------------------------------
-- Refusals: thrown where they are found, answered in one place

local function answer(status, content_type, text, more)
  error({ status = status, content_type = content_type, text = text, headers = more }, 0)
end

local function refuse(status, code, text, more)
  error({ status = status, content_type = "text/plain", text = text, code = code, headers = more }, 0)
end

-- What a client wrote, as far as it may be repeated to it.
local function sanitised(text)
  return sub(gsub(text, "[^%w._/-]", "?"), 1, 64)
end

-- Handles do not survive a yield, so they are fetched for each use.
local function note(h, values)
  local metadata = h:streamInfo():dynamicMetadata()
  for key, value in pairs(values) do
    metadata:set(NAMESPACE, key, value)
  end
end

----------------------------------------------------------------------------------------------------------
-- JSON, as much of it as is needed, without a copy of the text

-- The position of the quote that ends the string whose first quote is at `from`; nil while there is none.
-- The search for a plain character is many times faster than a pattern, and prompts are long.
local function string_end(text, from)
  local at = from
  while true do
    at = find(text, '"', at + 1, true)
    if not at then
      return nil
    end
    local before = at - 1
    while byte(text, before) == BACKSLASH do
      before = before - 1
    end
    if (at - before) % 2 == 1 then
      return at
    end
  end
end

local ESCAPED = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

local function unescape(kind, digits)
  if kind ~= "u" then
    return (ESCAPED[kind] or kind) .. digits
  end
  local code = tonumber(digits, 16)
  return code and code < 128 and char(code) or "?"
end

-- A string's text. Only ASCII is decoded: no name that we know holds anything else.
local function decoded(raw)
  if #raw > 1024 or not find(raw, "\\", 1, true) then
    return raw
  end
  return (gsub(raw, "\\(.)(%x?%x?%x?%x?)", unescape))
end

-- The one value that "model" has anywhere in the text; nil where a closer look is needed. A "model" inside a
-- string has escaped quotes and is not found. Which of several objects it belongs to does not matter here: an
-- engine refuses a body whose model is not its own.
local function glance(text)
  local value, at = nil, 1
  for _ = 1, GLANCES do
    local _, last = find(text, '"model"', at, true)
    if not last then
      return value
    end
    local colon = match(text, "^%s*:()", last + 1)
    if colon then
      local found = match(text, '^%s*"([^"\\]*)"', colon)
      if not found or (value and value ~= found) then
        return nil
      end
      value = found
    end
    at = last + 1
  end
  return nil
end

-- What stands after the key that ends at `last`: its text and where it ends; false where it is no string.
local function value_after(text, colon)
  local from = match(text, '^%s*()"', colon)
  local last = from and string_end(text, from)
  if not last then
    return false, colon
  end
  return decoded(sub(text, from + 1, last - 1)), last + 1
end

-- The value of the object's own "model", the last one where there are several, as JSON readers have it. nil:
-- there is none; false: it is no string. Refuses what is no JSON object, as far as that takes to see.
local function own_model(text)
  local at, value, depth = match(text, "^%s*{()"), nil, 1
  for _ = 1, STEPS do
    at = at and find(text, '["{}%[%]]', at)
    if not at then
      refuse("400", "bad_request", "the body is not a JSON object")
    end
    local what = byte(text, at)
    if what == QUOTE then
      local last = string_end(text, at)
      local colon = last and depth == 1 and match(text, "^%s*:()", last + 1)
      if colon and decoded(sub(text, at + 1, last - 1)) == "model" then
        value, at = value_after(text, colon)
      else
        at = last and last + 1
      end
    else
      depth = depth + ((what == OPEN or what == OPEN_LIST) and 1 or -1)
      at = at + 1
      if depth == 0 then
        return value
      end
    end
  end
  local advice = "the body is too involved to find its model; send the header " .. MODEL_HEADER
  refuse("413", "request_too_large", advice)
end

----------------------------------------------------------------------------------------------------------
-- The way in

-- Takes away what a client may not say. What it says of the model is read before.
local function strip(headers)
  local gone = {}
  for name in pairs(headers) do
    if STRIPPED[name] or STRIPPED_FAMILIES[match(name, "^x%-(%w+)%-") or ""] then
      gone[#gone + 1] = name
    end
  end
  for _, name in ipairs(gone) do
    headers:remove(name)
  end
end

-- Who asks: the tenant, and what the tables say of it. Signature, audience and times are checked already.
local function identify(h)
  local verified = h:streamInfo():dynamicMetadata():get(KEYS)
  local claims = verified and verified.payload
  local tenant, key = claims and claims.sub, claims and claims.jti
  if type(tenant) ~= "string" or type(key) ~= "string" or claims.iss ~= TABLES.issuer then
    refuse("401", "invalid_api_key", "no valid API key: send Authorization: Bearer <key>")
  end
  note(h, { tenant = tenant, key = key })
  if TABLES.revoked[key] then
    refuse("401", "invalid_api_key", "this API key has been revoked: ask for a new one")
  end
  local known = TABLES.tenants[tenant]
  if not known then
    refuse("403", "unknown_tenant", "the tenant of this API key is not known here")
  end
  return known
end

-- What is asked for, by the exact path.
local function route_of(headers)
  local method = headers:get(":method")
  if method ~= "GET" and method ~= "POST" then
    refuse("405", "method_not_allowed", "only GET and POST are answered", { allow = "GET, POST" })
  end
  local path = match(headers:get(":path") or "", "^[^?]*")
  local route = not headers:get("upgrade") and ROUTES[path]
  if not route and find(path, "/v1/models/", 1, true) == 1 then
    refuse("404", "model_not_found", "no such model; GET /v1/models lists them")
  elseif not route then
    refuse("404", "not_found", "no such path; the API is at /v1/ and at /<namespace>/<model>/v1/")
  elseif route.method ~= method then
    local advice = "this path answers " .. route.method .. " only"
    refuse("405", "method_not_allowed", advice, { allow = route.method })
  end
  return route
end

local function known_model(name)
  if not name then
    refuse("404", "model_not_found", 'the body names no "model"; GET /v1/models lists them')
  end
  local model = NAMES[name]
  if not model then
    local advice = " does not exist; GET /v1/models lists them"
    refuse("404", "model_not_found", "the model " .. sanitised(name) .. advice)
  end
  return model
end

-- The model that a body asks for. Yields until the body is complete.
local function model_of_body(h)
  if h:headers():get("expect") then
    -- Where Istio leaves the 100 to the engine, which hears of the request only after this.
    refuse("417", "expectation_failed", "send the body without waiting, or name the model in " .. MODEL_HEADER)
  end
  local body = h:body()
  local length = body and body:length() or 0
  local text = length > 0 and body:getBytes(0, length) or ""
  if not match(text, "^%s*{") then
    refuse("400", "bad_request", "the body is not a JSON object")
  end
  local seen = glance(text)
  return seen and NAMES[seen] or known_model(own_model(text)), length
end

-- The model that a request is for, and how long its body is where that is known. Only the base form without a header
-- reads the body.
local function model_of(h, route, named)
  if not route.model and not named then
    return model_of_body(h)
  end
  local length = tonumber(h:headers():get("content-length") or "")
  if not route.model then
    return known_model(named), length
  end
  if named and NAMES[named] ~= route.model then
    refuse("400", "bad_request", "the header " .. MODEL_HEADER .. " names another model than the path")
  end
  return route.model, length
end

local function allowed(tenant, model)
  local set = tenant and TABLES.sets[tenant.models or 0]
  return not set or set[model.key] or false
end

local function model_object(model)
  return '{"id":"' .. model.names[1] .. '","object":"model","created":0,"owned_by":"' .. TABLES.issuer .. '"}'
end

local function list_of(tenant)
  local found = {}
  for _, model in ipairs(TABLES.models) do
    if allowed(tenant, model) then
      found[#found + 1] = model_object(model)
    end
  end
  return '{"object":"list","data":[' .. concat(found, ",") .. "]}"
end

local function admit(h)
  local headers = h:headers()
  local named = headers:get(MODEL_HEADER)
  strip(headers)
  local tenant = TABLES.tenants and identify(h)
  local route = route_of(headers)
  if route.kind == "list" then
    answer("200", "application/json", list_of(tenant))
  end
  local model, length = model_of(h, route, named)
  note(h, { model = model.key })
  if not allowed(tenant, model) then
    refuse("403", "model_not_allowed", "this API key's tenant may not use the model " .. model.names[1])
  end
  if route.kind == "show" then
    answer("200", "application/json", model_object(model))
  end
  -- Said here, it costs its tenant nothing, and clients can tell it from a failure.
  if model.asleep then
    refuse("503", "model_asleep", "the model " .. model.names[1] .. " sleeps: no replica runs until it is woken up")
  end
  local metered = METERED[route.kind] and tenant
  -- The one that is taken next, in case that nothing comes back.
  local attempt = metered and TABLES.measure == "tokens" and 1 or nil
  note(h, { kind = route.kind, tier = metered and tenant.tier or EXEMPT, cost = attempt })
  if not tenant then
    note(h, { tenant = "", key = "" })
  end
  h:headers():replace(MODEL_HEADER, model.header)
  if METERED[route.kind] and (not length or length > PICKED) then
    h:headers():replace(TABLES.long.header, TABLES.long.value)
  end
end

-- Answers what `admit` threw. Nothing after a respond() runs.
local function reply(h, what)
  local headers = { [":status"] = what.status, ["content-type"] = what.content_type }
  for name, value in pairs(what.headers or {}) do
    headers[name] = value
  end
  if what.code then
    note(h, { code = what.code })
  end
  h:respond(headers, what.text)
end

function envoy_on_request(h)
  local ok, thrown = pcall(admit, h)
  if ok then
    return
  end
  if type(thrown) == "table" and pcall(reply, h, thrown) then
    return
  end
  -- Raised on the way back, where Envoy counts it and the request stays refused.
  pcall(note, h, { failed = tostring(thrown), code = "unavailable" })
  local headers = { [":status"] = "503", ["content-type"] = "text/plain" }
  h:respond(headers, "the gateway could not judge this request")
end

----------------------------------------------------------------------------------------------------------
-- The way back

-- A meter: what is known of one answer so far.
--   price            millionths per token of the model that the request was routed to
--   total, prompt, completion   of the usage object with the largest total, 0 while there was none
--   bytes, expected, events     what the estimate is made of
--   sse, plain       whether it is a stream of events, and whether its text can be read
--   rest, tail, delta_tail   the end of the text so far that may be the start of a usage object, of an event
--   deltas           events of /v1/responses that carry text
--   charged          whether a charge is wanted
--   written, source, cost   what was written last; limit, left: the budget that the headers show

-- A count in an object without inner objects; nil for what is no count.
local function count(object, field)
  local n = tonumber(match(object, field))
  return n and n >= 0 and min(ceil(n), MOST) or nil
end

local function field(name)
  return '"' .. name .. '"%s*:%s*(-?[%d.][%d.eE+-]*)'
end

local TOTAL = field("total_tokens")
-- OpenAI's completions, then its responses and Anthropic's messages.
local PROMPT, INPUT = field("prompt_tokens"), field("input_tokens")
local COMPLETION, OUTPUT = field("completion_tokens"), field("output_tokens")

-- Takes a usage object into the meter, if it says more than those before: a stream may carry one per event,
-- and what a client had echoed can only raise its own bill. Messages tell input and output in different events.
local function take(meter, object)
  local flat = gsub(sub(object, 2, -2), "%b{}", "")
  local prompt = count(flat, PROMPT) or count(flat, INPUT)
  local completion = count(flat, COMPLETION) or count(flat, OUTPUT)
  local total = count(flat, TOTAL)
  if not total and (prompt or completion) then
    prompt, completion = prompt or meter.prompt, completion or meter.completion
    total = min(prompt + completion, MOST)
  end
  if total and total > meter.total then
    prompt = min(prompt or 0, total)
    meter.total, meter.prompt, meter.completion = total, prompt, min(completion or total - prompt, total)
  end
end

-- The position of the brace that ends the object that starts at `from`; nil while there is none. Braces in
-- strings do not count: a client's own objects may be echoed before the usage, to hide it.
local function object_end(text, from)
  local depth, at = 0, from
  while at do
    local what = byte(text, at)
    if what == QUOTE then
      at = string_end(text, at)
      if not at then
        return nil
      end
    else
      depth = depth + (what == OPEN and 1 or -1)
      if depth == 0 then
        return at
      end
    end
    at = find(text, '["{}]', at + 1)
  end
end

-- Takes every complete usage object of the text, and returns what must be kept for the next chunk. The model's
-- text cannot forge one: inside a string quotes are escaped, so the key never appears there.
local function usage_in(meter, text)
  local at = 1
  while true do
    local first, last = find(text, '"usage"', at, true)
    if not first then
      return sub(text, -6)
    end
    local from = match(text, "^%s*:%s*(){", last + 1)
    local to = from and object_end(text, from)
    if to then
      take(meter, sub(text, from, to))
      at = to + 1
    elseif from or find(text, "^%s*:?%s*$", last + 1) then
      return #text - first < CARRY and sub(text, first) or sub(text, -6)
    else
      at = last + 1
    end
  end
end

-- How often a mark is in the text.
local function occurrences(text, mark)
  local n, at = 0, find(text, mark, 1, true)
  while at do
    n, at = n + 1, find(text, mark, at + #mark, true)
  end
  return n
end

-- Events are lines, and text in JSON holds no line end. A tail is one byte shorter than its mark, so that each
-- mark is counted once however it is split. /v1/responses echoes tools of the client, which may hold a small
-- usage: there no answer costs less than its events with text.
local function events_in(meter, text)
  local lines = meter.tail .. text
  meter.events = meter.events + occurrences(lines, "\ndata:")
  meter.tail = sub(lines, -5)
  if meter.deltas then
    local ends = meter.delta_tail .. text
    meter.deltas = meter.deltas + occurrences(ends, ".delta\n") + occurrences(ends, ".delta\r")
    meter.delta_tail = sub(ends, -6)
  end
end

-- One token per event, or per four bytes.
local function estimate(meter)
  return meter.sse and meter.plain and meter.events or ceil(max(meter.bytes, meter.expected) / 4)
end

-- Writes what the answer costs so far. Now and not at the end: after a disconnect nothing of this runs again.
local function commit(h, meter)
  local floor = meter.total == 0 and estimate(meter) or meter.deltas or 0
  local guessed = floor > meter.total
  local total = guessed and min(floor, MOST) or meter.total
  local source = meter.total > 0 and not guessed and "usage" or "estimate"
  if total == meter.written and source == meter.source then
    return
  end
  local cost = max(min(ceil(total * meter.price / MILLION), MOST), 1)
  note(h, {
    prompt = meter.prompt,
    completion = guessed and max(total - meter.prompt, 0) or meter.completion,
    total = total,
    cost = cost,
    charge = meter.charged and cost - 1 or nil,
    source = source,
  })
  meter.written, meter.source, meter.cost = total, source, cost
end

local function read(h, meter, chunk)
  local length = chunk:length()
  if length == 0 then
    return
  end
  meter.bytes = meter.bytes + length
  if meter.plain then
    local text = chunk:getBytes(0, length)
    meter.rest = usage_in(meter, meter.rest .. text)
    if meter.sse and (meter.total == 0 or meter.deltas) then
      events_in(meter, text)
    end
  end
  commit(h, meter)
end

-- A chunk whatever happens: when reading fails, the rest of the answer is paid for by its size.
local function read_safely(h, meter, chunk)
  local ok, why = pcall(read, h, meter, chunk)
  if not ok then
    meter.broken, meter.plain = tostring(why), false
    pcall(commit, h, meter)
  end
end

local function whole(text)
  local n = tonumber(text)
  return n and n >= 0 and n < math.huge and n or nil
end

-- What is left of a budget, in headers that always add up.
local function show(headers, limit, left)
  left = max(min(left, limit), 0)
  headers:replace(TABLES.headers.remaining, string.format("%.0f", left))
  headers:replace(TABLES.headers.used, string.format("%.0f", limit - left))
end

local function budget_of(headers)
  local names = TABLES.headers
  local limit = names and whole(headers:get(names.limit))
  local left = limit and whole(headers:get(names.remaining))
  return left and limit, left
end

local function meter_for(headers, known)
  local model = BY_KEY[known.model]
  local kind = lower(headers:get("content-type") or "")
  local encoding = lower(headers:get("content-encoding") or "identity")
  return {
    price = model and model.price or WORST,
    total = 0,
    prompt = 0,
    completion = 0,
    bytes = 0,
    events = 0,
    expected = whole(headers:get("content-length")) or 0,
    sse = find(kind, "event-stream", 1, true) ~= nil,
    json = find(kind, "json", 1, true) ~= nil,
    plain = encoding == "identity" or encoding == "",
    rest = "",
    tail = "\n",
    deltas = known.kind == "/v1/responses" and 0 or nil,
    delta_tail = "",
    charged = TABLES.measure == "tokens",
  }
end

-- The meter of an answer that has a price, with its first charge written; nil for all others.
local function begin(h)
  local known = h:streamInfo():dynamicMetadata():get(NAMESPACE) or {}
  if known.failed then
    return nil, known.failed
  end
  local headers = h:headers()
  -- The inference extension's picker adds it to every answer.
  headers:remove("x-went-into-resp-headers")
  local limit, left = budget_of(headers)
  local status = headers:get(":status") or ""
  if not METERED[known.kind] or not find(status, "^2") or status == "204" then
    if limit then
      -- An attempt that was refused or failed has cost the one that was taken on the way in; the log says so already.
      show(headers, limit, left)
    elseif known.cost then
      -- The limits could not be asked.
      note(h, { cost = 0 })
    end
    return nil
  end
  local meter = meter_for(headers, known)
  meter.limit = meter.charged and limit
  commit(h, meter)
  if meter.limit then
    -- The one that was taken on the way in is part of the price, which is not known yet.
    meter.left = left + 1
    show(headers, limit, meter.left)
  elseif limit then
    show(headers, limit, left)
  end
  return meter
end

-- A small answer whole, so that its headers can say what is left after it.
local function settle(h, meter)
  local body = h:body()
  if body then
    read_safely(h, meter, body)
  end
  show(h:headers(), meter.limit, meter.left - meter.cost)
end

function envoy_on_response(h)
  local ok, meter, failed = pcall(begin, h)
  if not ok then
    -- Nothing is known, so every byte is paid for, at the highest price.
    failed = tostring(meter)
    meter = { price = WORST, total = 0, prompt = 0, completion = 0, bytes = 0, expected = 0, charged = true }
    pcall(commit, h, meter)
  end
  if meter then
    if meter.limit and meter.json and meter.plain and meter.expected <= SMALL then
      local settled, why = pcall(settle, h, meter)
      failed = failed or (not settled and tostring(why)) or nil
    else
      -- Neither left early nor buffered: either would hold the stream.
      for chunk in h:bodyChunks() do
        read_safely(h, meter, chunk)
      end
    end
  end
  failed = failed or (meter and meter.broken)
  if failed then
    error(failed, 0)
  end
end
