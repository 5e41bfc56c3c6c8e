-- Has requests wait in HAProxy while databases are swapped, until the route leads to a slot again. In haproxy.cfg:
--
--   global
--     setenv POINTSMAN_HOLD "/var/lib/pointsman/route.map route be_hold 5000"
--     lua-load /etc/haproxy/pointsman-hold.lua
--   frontend fe
--     http-request lua.pointsman_hold unless trusted { req.hdr(X-Pointsman) -m found }
--
-- before the lines that look the route up. The words of the variable: the map, its key, the backend that the route leads to
-- meanwhile, and the longest time in milliseconds. Whoever has waited that long gets what this backend answers with: no
-- request waits for ever, whoever has died.

local map, key, backend, longest_ms = string.match(os.getenv("POINTSMAN_HOLD") or "", "^(%S+) (%S+) (%S+) (%d+)$")
assert(map, "POINTSMAN_HOLD must be four words: map, key, backend, milliseconds")
-- How often the route is looked at: a request that waits is served at most this much later than it could be.
local EVERY_MS = 5

local routes = Map.new(map, Map._str)
local held = backend .. ":"
longest_ms = tonumber(longest_ms)

local function is_held()
  local route = routes:lookup(key)
  return route ~= nil and string.sub(route, 1, #held) == held
end

local function now_ms()
  local now = core.now()
  return now.sec * 1000 + math.floor(now.usec / 1000)
end

core.register_action("pointsman_hold", { "http-req" }, function()
  local until_ms
  while is_held() do
    until_ms = until_ms or now_ms() + longest_ms
    if now_ms() >= until_ms then return end
    core.msleep(EVERY_MS)
  end
end, 0)
