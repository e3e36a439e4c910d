-- What wrk sends: requests from a file, one a line (path, Authorization, Content-Type, body, with tabs between them), in their order.
-- wrk … -- FILE cycle|once SECONDS PAUSE: over and over again, or each of them once, for so long; after each answer a pause of 0 to 2 × PAUSE ms. What
-- time wrk itself is given beyond that is for the last answers. At the end one line of JSON: how many were sent and answered, by status, and how
-- long that took.

local ffi = require("ffi")
ffi.cdef("typedef struct { long seconds; long micros; } speed_time; int gettimeofday(speed_time *, void *);")
local time = ffi.new("speed_time")

local NEVER = 600 * 1000
local requests, position, promised, once, period, pause = {}, 0, 0, false, 0, 0
local threads = {}
-- Read by `done`, from each thread.
sent, statuses = 0, {}

local function now()
  ffi.C.gettimeofday(time, nil)
  return tonumber(time.seconds) * 1e6 + tonumber(time.micros)
end

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  once, period, pause = args[2] == "once", tonumber(args[3]) * 1e6, tonumber(args[4])
  for line in io.lines(args[1]) do
    local path, authorization, kind, body = line:match("^([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)$")
    local headers = { ["Content-Type"] = kind }
    if authorization ~= "" then headers["Authorization"] = authorization end
    table.insert(requests, wrk.format("POST", path, headers, body))
  end
  math.randomseed(os.time())
  -- wrk asks once for a request before it begins, and throws that away.
  position, sent = once and -2 or math.random(0, #requests - 1), -1
end

-- Before each request: how many ms to wait. What is waited for in vain is never sent.
function delay()
  if first and now() - first >= period or once and promised >= #requests then return NEVER end
  promised = promised + 1
  return pause > 0 and math.random(0, 2 * pause) or 0
end

function request()
  if sent == 0 then first = now() end
  sent = sent + 1
  position = position + 1
  return requests[position % #requests + 1]
end

function response(status)
  last = now()
  statuses[status] = (statuses[status] or 0) + 1
end

function done(summary, latency)
  local counts, all, began, ended = {}, 0, math.huge, 0
  for _, thread in ipairs(threads) do
    all = all + thread:get("sent")
    began, ended = math.min(began, thread:get("first") or began), math.max(ended, thread:get("last") or 0)
    for status, count in pairs(thread:get("statuses")) do counts[status] = (counts[status] or 0) + count end
  end
  local written = {}
  for status, count in pairs(counts) do table.insert(written, string.format('"%d":%d', status, count)) end
  local errors = summary.errors
  io.write(string.format(
    '\n{"sent":%d,"answered":%d,"micros":%d,"p50":%d,"p99":%d,"p999":%d,"max":%d,"statuses":{%s},"connect":%d,"read":%d,"write":%d,"timeout":%d}\n',
    all, summary.requests, math.max(ended - began, 1), latency:percentile(50), latency:percentile(99), latency:percentile(99.9), latency.max,
    table.concat(written, ","), errors.connect, errors.read, errors.write, errors.timeout))
end
