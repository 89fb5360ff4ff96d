--- The timeline that is shown: which window of time, which page of hits, and what must be asked for them.
--- Does not touch the editor's state and reads no clock: timeline_view.lua shows it.
---
--- One load is under way at a time; what was asked for meanwhile is loaded once when it is done.
local decode = require('riptrace.decode')
local text = require('riptrace.text')

local M = {}

--- Hits in the list: more are reached by its keys.
M.LIST_HITS = 200
--- How many times one search is continued: the adapter looks at ten thousand hits each time.
local SEARCH_REQUESTS_MAX = 100
local PAGE_HITS_MAX = 500
local SERVICES_MAX = 1000
--- Nearer than this nothing is to be seen: clocks are not that exact.
local WINDOW_NS_MIN = 1000
--- What is left free at either side when everything is shown, as a share of the whole.
local MARGIN = 0.02

---@class riptrace.TimelineHit
---@field seq integer
---@field time string
---@field at_ns integer Since the first hit of the session
---@field uncertainty_ns integer
---@field host string
---@field service string
---@field pid integer
---@field goroutine? integer
---@field function? string
---@field file? string
---@field line? integer
---@field label string
---@field undetermined_with integer[]
---@field late boolean
---@field duration_ns? integer

---@class riptrace.TimelineFilter
---@field host? string
---@field service? string
---@field goroutine? integer
---@field text? string
---@field when? string

---@alias riptrace.Ask fun(request: string, arguments: table, on_answer: fun(problem: string?, body: any))

---@class riptrace.Timeline
---@field list riptrace.TimelineHit[]
---@field lanes { service: string, hits: integer, counts: integer[], first: integer[], uncertainty_ns: integer }[]
---@field window? { from_ns: integer, to_ns: integer }
---@field all? { from_ns: integer, to_ns: integer }
---@field following boolean
---@field filter riptrace.TimelineFilter
---@field open? integer
---@field arrived integer
---@field dropped integer
---@field evicted integer
---@field oldest? integer
---@field newest? integer
---@field problem? string
---@field columns integer
local Timeline = {}
Timeline.__index = Timeline

---@param ask riptrace.Ask
---@param changed fun() there is something new to draw
---@return riptrace.Timeline
function M.new(ask, changed)
  return setmetatable({
    ask = ask,
    changed = changed,
    list = {},
    lanes = {},
    following = true,
    filter = {},
    arrived = 0,
    dropped = 0,
    evicted = 0,
    columns = 60,
    whole = true,
    loading = false,
    again = false,
  }, Timeline)
end

local function read_hit(value, place)
  local hit = decode.fields(value, place)
  decode.count(hit.seq, place .. '.seq')
  decode.text(hit.time, place .. '.time')
  decode.quantity(hit.at_ns, place .. '.at_ns')
  decode.count(hit.uncertainty_ns, place .. '.uncertainty_ns')
  decode.text(hit.host, place .. '.host')
  decode.text(hit.service, place .. '.service')
  decode.text(hit.label, place .. '.label')
  hit.undetermined_with = decode.list(hit.undetermined_with, place .. '.undetermined_with', 10000, decode.count)
  return hit
end

---@param body any
---@return table?, string?
function M.read_page(body)
  return decode.try(function(value)
    local page = decode.fields(decode.without_null(value), 'page')
    page.hits = decode.list(page.hits, 'hits', PAGE_HITS_MAX, read_hit)
    for _, key in ipairs({ 'arrived', 'dropped', 'evicted' }) do
      decode.count(page[key], key)
    end
    return page
  end, body)
end

---@param body any
---@return table?, string?
function M.read_overview(body)
  return decode.try(function(value)
    local overview = decode.fields(value, 'overview')
    decode.quantity(overview.from_ns, 'from_ns')
    decode.quantity(overview.to_ns, 'to_ns')
    local buckets = decode.count(overview.buckets, 'buckets')
    overview.services = decode.list(overview.services, 'services', SERVICES_MAX, function(entry, place)
      local lane = decode.fields(entry, place)
      decode.text(lane.service, place .. '.service')
      decode.count(lane.hits, place .. '.hits')
      decode.count(lane.uncertainty_ns, place .. '.uncertainty_ns')
      decode.list(lane.counts, place .. '.counts', buckets, decode.count)
      decode.fields(lane.first, place .. '.first')
      return lane
    end)
    return overview
  end, body)
end

--- A page of `wanted` hits: a search that was cut short is gone on with.
---@param query table
---@param wanted integer
---@param on_page fun(problem: string?, page: table?)
function Timeline:gather(query, wanted, on_page)
  local kept, requests = {}, 0
  local function step(part)
    requests = requests + 1
    local missing = math.min(wanted - #kept, PAGE_HITS_MAX)
    local arguments = vim.tbl_extend('force', part, { count = missing, filter = query.filter })
    self.ask('timelinePage', arguments, function(problem, body)
      if problem then
        return on_page(problem)
      end
      local page, wrong = M.read_page(body)
      if not page then
        return on_page(wrong)
      end
      local forward = part.from ~= nil
      kept = forward and vim.list_extend(kept, page.hits) or vim.list_extend(page.hits, kept)
      local on = page.next and { from = page.next } or page.previous and { before = page.previous }
      if on and #kept < wanted and requests < SEARCH_REQUESTS_MAX then
        return step(on)
      end
      page.hits = kept
      on_page(nil, page)
    end)
  end
  step({ from = query.from, before = query.before })
end

--- Asks for what is to be shown now.
function Timeline:load()
  if self.loading then
    self.again = true
    return
  end
  self.loading, self.again = true, false
  local function done(problem)
    self.loading = false
    self.problem = problem
    self.changed()
    if self.again then
      self:load()
    end
  end
  local list_at = self.list_at or {}
  self:gather({ from = list_at.from, before = list_at.before, filter = self:wire_filter() }, M.LIST_HITS, function(problem, page)
    if not page then
      return done(problem)
    end
    if #page.hits == 0 and self.list_at then
      -- There is nothing on that side: the list goes back to the newest hits.
      self.list_at = nil
      self.again = true
    end
    self.ask('timelineOverview', { buckets = 1 }, function(problem_of_all, body)
      local everything, wrong = nil, problem_of_all
      if not problem_of_all then
        everything, wrong = M.read_overview(body)
      end
      if not everything then
        return done(wrong)
      end
      self:take_page(page, everything)
      if not self.window then
        self.lanes = {}
        return done()
      end
      self:load_lanes(done)
    end)
  end)
end

--- The filter as the adapter takes it: an empty Lua table would be an empty list.
function Timeline:wire_filter()
  return next(self.filter) and self.filter or vim.empty_dict()
end

---@param page table as `read_page` gives it
---@param everything table the overview of all hits, as `read_overview` gives it
function Timeline:take_page(page, everything)
  self.list = page.hits
  self.open, self.oldest, self.newest = page.open, page.oldest, page.newest
  self.arrived, self.dropped, self.evicted = page.arrived, page.dropped, page.evicted
  self.all = page.newest and { from_ns = everything.from_ns, to_ns = everything.to_ns } or nil
  if not self.all then
    self.window = nil
  elseif self.whole or not self.window then
    self.window = self:fit()
  elseif self.following then
    self:place(self:fit().to_ns - self:width())
  end
end

---@param done fun(problem: string?)
function Timeline:load_lanes(done)
  -- Counts are by origin: what is searched for in texts and values is in the list.
  local filter = { host = self.filter.host, service = self.filter.service, goroutine = self.filter.goroutine }
  local arguments = {
    from_ns = self.window.from_ns,
    to_ns = self.window.to_ns,
    buckets = self.columns,
    filter = next(filter) and filter or vim.empty_dict(),
  }
  self.ask('timelineOverview', arguments, function(problem, body)
    if problem then
      return done(problem)
    end
    local overview, wrong = M.read_overview(body)
    if overview then
      self.lanes = overview.services
    end
    done(wrong)
  end)
end

---@return integer
function Timeline:width()
  return self.window.to_ns - self.window.from_ns
end

--- A window with everything in it, and a little more.
function Timeline:fit()
  local margin = math.max(self.all.to_ns - self.all.from_ns, WINDOW_NS_MIN) * MARGIN
  return { from_ns = math.floor(self.all.from_ns - margin), to_ns = math.ceil(self.all.to_ns + margin) }
end

--- Moves the window to begin here, as wide as it is, and keeps it within everything.
---@param from_ns number
function Timeline:place(from_ns)
  local whole = self:fit()
  local width = math.min(self:width(), whole.to_ns - whole.from_ns)
  local from = math.min(math.max(from_ns, whole.from_ns), whole.to_ns - width)
  self.window = { from_ns = math.floor(from), to_ns = math.ceil(from + width) }
end

--- Makes the window `factor` times as wide; what is at `share` (0 to 1) stays where it is.
---@param factor number
---@param share? number
function Timeline:zoom(factor, share)
  if not self.window then
    return
  end
  share = self.following and 1 or share or 0.5
  local whole = self:fit()
  local at = self.window.from_ns + share * self:width()
  local width = math.min(math.max(self:width() * factor, WINDOW_NS_MIN), whole.to_ns - whole.from_ns)
  local from = at - share * width
  self.window = { from_ns = math.floor(from), to_ns = math.ceil(from + width) }
  self:place(from)
  self.whole = false
  self:load()
end

--- Moves the window by a share of its width, to later times when positive.
---@param share number
function Timeline:pan(share)
  if not self.window then
    return
  end
  self.following, self.whole = false, false
  self:place(self.window.from_ns + share * self:width())
  self:load()
end

function Timeline:show_all()
  self.whole = true
  self:load()
end

---@param on boolean
function Timeline:follow(on)
  self.following = on
  if on then
    self.list_at = nil
  end
  self:load()
end

--- Lists the hits from this one on.
---@param seq integer
function Timeline:list_from(seq)
  self.following = false
  self.list_at = { from = seq }
  self:load()
end

function Timeline:older()
  local first = self.list[1]
  if first and self.oldest and first.seq > self.oldest then
    self.following = false
    self.list_at = { before = first.seq }
    self:load()
  end
end

function Timeline:newer()
  local last = self.list[#self.list]
  if last and self.newest and last.seq < self.newest then
    self.list_at = { from = last.seq + 1 }
    self:load()
  end
end

---@param filter riptrace.TimelineFilter
function Timeline:set_filter(filter)
  self.filter = filter
  self.list_at = nil
  self:load()
end

--- A filter as it is typed: `service=cart host=web-* goroutine=34 tea`, or `=quantity > 3`.
---@param typed string
---@return riptrace.TimelineFilter?, string? problem
function M.parse_filter(typed)
  local filter = {}
  typed = vim.trim(typed)
  local words, when = typed:match('^(.-)%s+=%s(.+)$')
  if vim.startswith(typed, '=') then
    words, when = '', typed:sub(2)
  end
  if when and vim.trim(when) ~= '' then
    filter.when = vim.trim(when)
  else
    words = typed
  end
  local rest = {}
  for word in words:gmatch('%S+') do
    local key, value = word:match('^(%l+)=(.+)$')
    if key == 'host' or key == 'service' then
      filter[key] = value:find('[*?]') and value or ('*%s*'):format(value)
    elseif key == 'goroutine' then
      filter.goroutine = tonumber(value:match('^%d+$'))
      if not filter.goroutine then
        return nil, ("'%s' is not the number of a goroutine"):format(value)
      end
    else
      -- Also `qty=3`, which is how a hit says its values.
      table.insert(rest, word)
    end
  end
  if #rest > 0 then
    filter.text = table.concat(rest, ' ')
  end
  return filter
end

---@param filter riptrace.TimelineFilter
---@return string
function M.filter_text(filter)
  local parts = {}
  for _, key in ipairs({ 'host', 'service', 'goroutine' }) do
    if filter[key] then
      table.insert(parts, ('%s=%s'):format(key, filter[key]))
    end
  end
  if filter.text then
    table.insert(parts, filter.text)
  end
  if filter.when then
    table.insert(parts, '= ' .. filter.when)
  end
  return table.concat(parts, ' ')
end

local BARS = { '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█' }
local SERVICE_WIDTH = 14
local LANE_GROUPS = { 'RipTraceLane1', 'RipTraceLane2', 'RipTraceLane3', 'RipTraceLane4' }
local TICK_EVERY = 16

--- What a line of the buffer stands for: a hit of the list, or a lane with the hits of its columns.
---@class riptrace.TimelineTarget
---@field hit? riptrace.TimelineHit
---@field lane? integer

--- Where the columns of a lane begin, in display cells.
M.LANE_START = SERVICE_WIDTH + 1

---@param count integer
---@param most integer
---@return string
local function bar(count, most)
  if count == 0 then
    return ' '
  end
  -- By the order of magnitude: one hit is still seen beside a thousand.
  local level = math.ceil(math.log(1 + count) / math.log(1 + most) * #BARS)
  return BARS[math.max(1, math.min(#BARS, level))]
end

---@return riptrace.Chunks[] lines
---@return table<integer, riptrace.TimelineTarget> targets by line, from 1
function Timeline:lines()
  local lines, targets = {}, {}
  local function add(chunks, target)
    table.insert(lines, chunks)
    targets[#lines] = target
  end
  local head = { text.plural(self.arrived, 'hit') }
  if self.dropped > 0 then
    table.insert(head, text.number(self.dropped) .. ' dropped')
  end
  if self.evicted > 0 then
    table.insert(head, text.number(self.evicted) .. ' older ones not kept')
  end
  local filter = M.filter_text(self.filter)
  add({
    { 'Timeline  ', 'Title' },
    { table.concat(head, ', ') },
    { self.following and '  following' or '', 'RipTraceArmed' },
    { filter ~= '' and '  filter: ' .. filter or '', 'RipTraceWaiting' },
    { '  g? for the keys', 'RipTraceWeak' },
  })
  if self.problem then
    add({ { text.one_line(self.problem), 'RipTraceRefused' } })
  end
  local most = 1
  for _, lane in ipairs(self.lanes) do
    for _, count in ipairs(lane.counts) do
      most = math.max(most, count)
    end
  end
  for index, lane in ipairs(self.lanes) do
    local bars = {}
    for _, count in ipairs(lane.counts) do
      table.insert(bars, bar(count, most))
    end
    add({
      { text.column(lane.service, SERVICE_WIDTH) .. ' ', 'Identifier' },
      { table.concat(bars), LANE_GROUPS[(index - 1) % #LANE_GROUPS + 1] },
      { ('  %s ±%s'):format(text.number(lane.hits), text.duration(lane.uncertainty_ns)), 'RipTraceWeak' },
    }, { lane = index })
  end
  if self.window then
    local step = self:width() / self.columns
    local axis = {}
    for column = 0, self.columns - TICK_EVERY, TICK_EVERY do
      local tick = '│' .. text.since_start(self.window.from_ns + column * step, step * TICK_EVERY / 4)
      table.insert(axis, text.column(tick, TICK_EVERY))
    end
    add({ { (' '):rep(SERVICE_WIDTH + 1) .. table.concat(axis), 'RipTraceWeak' } })
  end
  if #self.list == 0 then
    add({ { 'No hits', 'RipTraceWeak' } })
    return lines, targets
  end
  local first, last = self.list[1].seq, self.list[#self.list].seq
  add({
    { ('Hits %s to %s'):format(text.number(first), text.number(last)), 'Title' },
    { self.newest and last < self.newest and '  ]] newer' or '', 'RipTraceWeak' },
    { self.oldest and first > self.oldest and '  [[ older' or '', 'RipTraceWeak' },
  })
  for _, hit in ipairs(self.list) do
    local notes = {}
    if hit.duration_ns then
      table.insert(notes, 'took ' .. text.duration(hit.duration_ns))
    end
    if #hit.undetermined_with > 0 then
      table.insert(notes, '≈ ' .. table.concat(hit.undetermined_with, ', ', 1, math.min(4, #hit.undetermined_with)))
    end
    if hit.late then
      table.insert(notes, 'late')
    end
    local is_open = hit.seq == self.open
    local clock = ('%s ±%s'):format(text.clock_time(hit.time), text.duration(hit.uncertainty_ns))
    add({
      { is_open and '▶ ' or '  ', 'RipTraceArmed' },
      { text.column('#' .. hit.seq, 8), is_open and 'RipTraceOpen' or 'Number' },
      { text.column(clock, 27), 'RipTraceWeak' },
      { text.column(hit.service, 12), 'Identifier' },
      { text.column(hit.host, 12) },
      { text.column(hit.goroutine and 'g' .. hit.goroutine or '', 8) },
      { text.one_line(hit.label) },
      { #notes > 0 and '  ' .. table.concat(notes, ', ') or '', 'RipTraceWaiting' },
    }, { hit = hit })
  end
  return lines, targets
end

--- The first hit of a lane at a column of it, or of the nearest column that has one.
---@param lane_index integer
---@param column integer from 1
---@return integer? seq
function Timeline:hit_at(lane_index, column)
  local lane = self.lanes[lane_index]
  local best, distance
  for index, seq in pairs(lane and lane.first or {}) do
    if type(seq) == 'number' and (not distance or math.abs(index - column) < distance) then
      best, distance = seq, math.abs(index - column)
    end
  end
  return best
end

return M
