-- One node's report of what a tenant used there, and its request for another slice of the tenant's budgets.
--
-- KEYS[1]  the tenant's state: one packed value, so that it is there whole or not at all
-- ARGV[1]  the request as JSON, see fleet/script.rs
-- returns  {generation, nodes, then of each resource: leased, available, target, wait in ms, outage share}; or {} when the
--          request is older than one that was answered
--
-- Resources: 1 calls and 2 tokens of the sliding minute; 3, 4 tokens and money of the hour; 5, 6 of the day; then of
-- the week, the month and the year; 13 calls open at once, which are leased and never used up. Of each: what was
-- reported as used, plus what all nodes have leased, plus their outage shares stays within the limit. A share is what a node
-- may use while this server is away, in any minute or of the period. `leased` of a node counts its share in, so that nodes of
-- an earlier version, whose script knows no shares, leave it alone too.
--
-- What nodes say is absolute (counters since they started, what they have leased), so that a request which is repeated,
-- or whose answer was lost, changes nothing.

local ask = cjson.decode(ARGV[1])
local second = math.floor(now_us / 1000000)
local now_ms = math.floor(now_us / 1000)

-- Any sixty seconds lie within the running second and the sixty before it.
local WINDOW = 61
local RESOURCES = 13
local OPEN_CALLS = 13
local PERIODS = 5
-- What a node has leased of quotas counts as used once it is not heard of for so long; until it is. So long its outage shares
-- are kept: nodes use them for less (OUTAGE_MS and LEASE_LIFETIME, which is `ttl_ms`, from before they asked).
local LOST_MS = 600000
-- For how long, and of how many such nodes, it is remembered what they had reported, so that they need not report all of it
-- again.
local REMEMBER_MS = 86400000
local REMEMBER_NODES = 128
-- The state outlives the longest period.
local KEEP_SECONDS = 400 * 86400
-- For so long after a state was lost nothing is leased anew: the other nodes have to report first what they used.
local SETTLE_MS = 2000
-- A call was refused for what was not leased: for so long nobody gets a share of what is left. All nodes with shares ask meanwhile.
local SHORT_MS = 8000
-- The part of a limit that the nodes may hold unused, and the part of what is left of it that is for outages: a quarter of a
-- minute's or of the slots, a hundredth of a period's.
local WINDOW_PART = 4
local PERIOD_PART = 100

local function first_day(year, month)
  if month <= 2 then year = year - 1 end
  local era = math.floor(year / 400)
  local year_of_era = year % 400
  local march_month = month > 2 and month - 3 or month + 9
  local day_of_year = math.floor((153 * march_month + 2) / 5)
  return era * 146097 + year_of_era * 365 + math.floor(year_of_era / 4) - math.floor(year_of_era / 100)
    + day_of_year - 719468
end

-- The starts of the running hour, day, week, month and year, in UTC.
local function period_starts()
  local day = math.floor(second / 86400)
  local shifted = day + 719468
  local day_of_era = shifted % 146097
  local year_of_era = math.floor((day_of_era - math.floor(day_of_era / 1460) + math.floor(day_of_era / 36524)
    - math.floor(day_of_era / 146096)) / 365)
  local day_of_year = day_of_era - (365 * year_of_era + math.floor(year_of_era / 4) - math.floor(year_of_era / 100))
  local march_month = math.floor((5 * day_of_year + 2) / 153)
  local month = march_month < 10 and march_month + 3 or march_month - 9
  local year = year_of_era + math.floor(shifted / 146097) * 400 + (month <= 2 and 1 or 0)
  return {
    second - second % 3600,
    day * 86400,
    -- 1970-01-01 was a Thursday, three days after a Monday.
    (day - (day + 3) % 7) * 86400,
    first_day(year, month) * 86400,
    first_day(year, 1) * 86400,
  }
end

local packed = redis.call('GET', KEYS[1])
local state = packed and cmsgpack.unpack(packed)
if not state or state.version ~= 2 then
  -- Nodes that know another generation see by this one that what they had reported is lost, and report it again.
  -- Where the whole server lost its memory, the others may not have reported yet.
  state = { version = 2, generation = ask.node .. '.' .. string.format('%.0f', now_us), nodes = {},
    windows = { {}, {} }, periods = {}, born = now_ms, settled = math.max(now_ms, ask.settled_ms) }
end
if ask.generation ~= '' and ask.generation ~= state.generation and now_ms < state.born + SETTLE_MS then
  state.settled = state.born + SETTLE_MS
end
-- Nor when no node could ask for a while: all were away, or the server was. What is further ahead is of another clock.
state.settled = math.min(math.max(state.settled, ask.settled_ms), now_ms + SETTLE_MS)
state.short = state.short or {}

for period, start in ipairs(period_starts()) do
  local book = state.periods[period]
  -- A server whose clock was set back changes nothing.
  if not book or start > book[1] then state.periods[period] = { start, 0, 0 } end
end

-- Windows are flat lists: second, amount, second, amount.
local used = {}
for index, window in ipairs(state.windows) do
  local kept, sum = {}, 0
  for at = 1, #window, 2 do
    if window[at] > second - WINDOW then
      kept[#kept + 1] = window[at]
      kept[#kept + 1] = window[at + 1]
      sum = sum + window[at + 1]
    end
  end
  state.windows[index] = kept
  used[index] = sum
end

local function add_to_window(index, amount)
  if amount <= 0 then return end
  local window = state.windows[index]
  if #window > 0 and window[#window - 1] >= second then
    window[#window] = window[#window] + amount
  else
    window[#window + 1] = second
    window[#window + 1] = amount
  end
  used[index] = used[index] + amount
end

local function add_to_period(period, tokens, cost)
  local book = state.periods[period]
  book[2] = math.max(0, book[2] + tokens)
  book[3] = math.max(0, book[3] + cost)
end

-- What a node had leased of the periods in which it may have used it, or less of it.
local function add_lost(node, sign)
  for period = 1, PERIODS do
    if node.expires + LOST_MS >= state.periods[period][1] * 1000 then
      add_to_period(period, sign * node.leased[1 + 2 * period], sign * node.leased[2 + 2 * period])
    end
  end
  node.lost = sign > 0
end

local lost = {}
for id, node in pairs(state.nodes) do
  local unheard_ms = now_ms - node.expires
  if id ~= ask.node and unheard_ms > LOST_MS then
    if not node.lost then add_lost(node, 1) end
    if unheard_ms > REMEMBER_MS then state.nodes[id] = nil else lost[#lost + 1] = id end
  end
end
if #lost > REMEMBER_NODES then
  table.sort(lost, function(one, other) return state.nodes[one].expires > state.nodes[other].expires end)
  for place = REMEMBER_NODES + 1, #lost do state.nodes[lost[place]] = nil end
end

-- The report.
local own = state.nodes[ask.node]
if own and ask.sequence <= own.sequence then return {} end
if own and own.lost then add_lost(own, -1) end
local before = own and own.used
if ask.generation == state.generation and ask.answered > (own and own.sequence or 0) then
  -- The server came back with an older state, and the others have not reported yet either.
  state.settled = math.max(state.settled, now_ms + SETTLE_MS)
end
if before then
  -- After an outage, some of it may have left the minute already.
  add_to_window(1, math.min(ask.used[1] - before[1], ask.window[1]))
  add_to_window(2, math.min(ask.used[2] - before[2], ask.window[2]))
  for period = 1, PERIODS do
    add_to_period(period, ask.used[3] - before[3], ask.used[4] - before[4])
  end
else
  add_to_window(1, ask.window[1])
  add_to_window(2, ask.window[2])
  for period = 1, PERIODS do
    add_to_period(period, ask.periods[period][1], ask.periods[period][2])
  end
end
for period = 1, PERIODS do
  used[1 + 2 * period] = state.periods[period][2]
  used[2 + 2 * period] = state.periods[period][3]
end
used[OPEN_CALLS] = 0

-- What is set apart for another node. One that is dead may have used its lease until that expired, and its share until that
-- did: of a window each counts for as long as such a use would, of a period until the node is heard of again. The open calls of
-- its lease have ended with it.
local function set_apart(node, resource)
  local dead_ms = now_ms - node.expires
  local leased, share = node.leased[resource], node.shares and node.shares[resource] or 0
  if resource > 2 and resource ~= OPEN_CALLS then return node.lost and 0 or leased end
  local counts_ms = resource == OPEN_CALLS and 0 or WINDOW * 1000
  if dead_ms < counts_ms then return leased end
  return dead_ms < LOST_MS + counts_ms and share or 0
end

local nodes = 1
local taken = {}
for resource = 1, RESOURCES do taken[resource] = 0 end
for id, node in pairs(state.nodes) do
  if id ~= ask.node then
    if now_ms < node.expires then nodes = nodes + 1 end
    for resource = 1, RESOURCES do taken[resource] = taken[resource] + set_apart(node, resource) end
  end
end

-- How long until `missing` of a window has left it; a second where only leases are in the way, as they are given back.
local function wait_ms(window, missing)
  if window then
    for at = 1, #window, 2 do
      missing = missing - window[at + 1]
      if missing <= 0 then return math.max(1, (window[at] + WINDOW) * 1000 - now_ms) end
    end
  end
  return 1000
end

local unreported = { math.min(ask.used[1] - ask.acknowledged[1], ask.window[1]),
  math.min(ask.used[2] - ask.acknowledged[2], ask.window[2]) }
for period = 1, PERIODS do
  unreported[1 + 2 * period] = ask.used[3] - ask.acknowledged[3]
  unreported[2 + 2 * period] = ask.used[4] - ask.acknowledged[4]
end

unreported[OPEN_CALLS] = 0

local reply = { state.generation, nodes }
local settling = now_ms < state.settled
local leased, shares = {}, {}
for resource = 1, RESOURCES do
  local limit, had, held, need, want, share_had, refused = unpack(ask.slices[resource])
  local kept, grant, share, available, target, wait = 0, 0, 0, 0, 0, 0
  leased[resource], shares[resource] = 0, 0
  if limit >= 0 then
    local left = math.max(0, limit - used[resource] - taken[resource])
    -- What calls hold is of the share where the lease was over.
    kept = math.max(0, math.min(math.max(had - unreported[resource], held), left))
    -- The node's own share among it: the node may lease that too.
    available = left - kept
    share_had = math.min(share_had, available)
    local free = math.max(0, kept - held)
    local part = (resource <= 2 or resource == OPEN_CALLS) and WINDOW_PART or PERIOD_PART
    -- Less the nearer the limit is, so that no node sits on what another could use.
    target = math.floor(math.min(math.max(limit / (part * nodes), want), (available + free) / (2 * nodes)))
    local missing = need - free - available
    if missing > 0 then wait = wait_ms(state.windows[resource], missing) end
    if refused then state.short[tostring(resource)] = now_ms + SHORT_MS end
    -- Before all have reported, a node may lease what it has not used of its share.
    local leasable = settling and math.max(0, share_had - math.max(0, unreported[resource]) - held) or available
    if not ask.idle then grant = math.min(leasable, math.max(0, math.max(need, target) - free)) end
    if settling and need > free + grant then wait = math.max(wait, state.settled - now_ms) end
    available = available - grant
    if ask.shares and settling then
      share = leasable - grant
    elseif ask.shares and now_ms >= (state.short[tostring(resource)] or 0) then
      share = math.floor(available / (part * nodes))
    end
    -- The answer may be lost, and then the node has what it had.
    shares[resource] = math.max(share_had, share)
    leased[resource] = kept + math.max(share_had, grant + share)
  end
  reply[#reply + 1] = kept + grant
  reply[#reply + 1] = available
  reply[#reply + 1] = target
  reply[#reply + 1] = wait
  reply[#reply + 1] = share
end

local holds_any = false
for resource = 1, RESOURCES do holds_any = holds_any or leased[resource] > 0 end
if ask.leaving and not holds_any then
  state.nodes[ask.node] = nil
else
  state.nodes[ask.node] = { sequence = ask.sequence, expires = now_ms + ask.ttl_ms, renewed = second,
    used = ask.used, leased = leased, shares = shares }
end
redis.call('SET', KEYS[1], cmsgpack.pack(state), 'EX', KEEP_SECONDS)
return reply
