--- The Timeline buffer: what its keys do, and when it is drawn anew. What it says is in timeline.lua.
local text = require('riptrace.text')
local timeline_module = require('riptrace.timeline')
local util = require('riptrace.util')
local view = require('riptrace.view')

local M = {}

M.NAME = 'riptrace://timeline'
M.FILETYPE = 'riptrace-timeline'

local HEIGHT = 16
--- Columns beside the bars of a lane: its name in front and its counts behind.
local BESIDE = timeline_module.LANE_START + 18
local COLUMNS_MIN, COLUMNS_MAX = 20, 400
--- What changes more often than this is drawn once: nobody reads faster.
local REDRAW_MS = 250
local PAN = 0.25

local namespace = vim.api.nvim_create_namespace('riptrace.timeline')

---@class riptrace.TimelineView
---@field buffer integer
---@field timeline riptrace.Timeline
---@field targets table<integer, riptrace.TimelineTarget>
---@field source riptrace.Source

---@type riptrace.TimelineView?
local shown
local waiting = false

local function draw()
  if not shown or not vim.api.nvim_buf_is_valid(shown.buffer) then
    return
  end
  local windows = vim.fn.win_findbuf(shown.buffer)
  local here = {}
  for _, window in ipairs(windows) do
    local cursor = vim.api.nvim_win_get_cursor(window)
    local target = shown.targets[cursor[1]]
    here[window] = { cursor = cursor, seq = target and target.hit and target.hit.seq }
  end
  local lines, targets = shown.timeline:lines()
  text.write(shown.buffer, namespace, lines)
  shown.targets = targets
  -- The cursor stays on its hit, wherever that is now.
  for window, was in pairs(here) do
    local row = math.min(was.cursor[1], #lines)
    for index, target in pairs(targets) do
      if was.seq and target.hit and target.hit.seq == was.seq then
        row = index
      end
    end
    vim.api.nvim_win_set_cursor(window, { math.max(1, row), was.cursor[2] })
  end
end

--- Something has changed: asks anew, a few times a second at most.
function M.changed()
  if not shown or waiting then
    return
  end
  waiting = true
  vim.defer_fn(function()
    waiting = false
    if shown and #vim.fn.win_findbuf(shown.buffer) > 0 then
      shown.timeline:load()
    end
  end, REDRAW_MS)
end

--- Another source of hits, or none any more: nothing of the old one stays.
---@param source riptrace.Source?
function M.set_source(source)
  if not shown or shown.source == source then
    return
  end
  if not source then
    local lines = { { { 'The session has ended: its hits went with it.', 'RipTraceWeak' } } }
    text.write(shown.buffer, namespace, lines)
    shown.targets = {}
    return
  end
  local here = shown
  here.source = source
  here.timeline = timeline_module.new(function(request, arguments, on_answer)
    source.ask(request, arguments, function(problem, body)
      if shown == here and here.source == source then
        on_answer(problem, body)
      end
    end)
  end, draw)
  here.timeline.columns = M.columns(here.buffer)
  here.timeline:load()
end

--- How many pieces of time stand beside each other in its window.
---@param buffer integer
---@return integer
function M.columns(buffer)
  local window = vim.fn.bufwinid(buffer)
  local width = window >= 0 and vim.api.nvim_win_get_width(window) or 80
  return math.max(COLUMNS_MIN, math.min(COLUMNS_MAX, width - BESIDE))
end

---@param act fun(timeline: riptrace.Timeline)
---@return fun()
local function on_timeline(act)
  return function()
    if shown then
      act(shown.timeline)
    end
  end
end

---@return riptrace.TimelineTarget?
local function target()
  return shown and shown.targets[vim.api.nvim_win_get_cursor(0)[1]]
end

--- From 1: the column of a lane that the cursor is on.
local function column()
  return math.max(1, vim.fn.virtcol('.') - timeline_module.LANE_START)
end

local function open()
  local at = target()
  if at and at.hit then
    shown.source.open(at.hit)
  elseif at and at.lane then
    local seq = shown.timeline:hit_at(at.lane, column())
    if seq then
      shown.timeline:list_from(seq)
    end
  end
end

local function variables()
  local at = target()
  if at and at.hit then
    require('riptrace').show_hit(at.hit.seq)
  end
end

local function open_source()
  local at = target()
  if at and at.hit and at.hit.file and not view.open_source(at.hit.file, at.hit.line or 1) then
    util.notify(('no file of this checkout is %s'):format(at.hit.file), vim.log.levels.WARN)
  end
end

local function zoom(factor)
  return on_timeline(function(timeline)
    local at = target()
    timeline:zoom(factor, at and at.lane and math.min(1, column() / timeline.columns) or nil)
  end)
end

local function filter()
  local here = shown
  local current = timeline_module.filter_text(here.timeline.filter)
  vim.ui.input({ prompt = 'Filter (service= host= goroutine= text, = expression): ', default = current }, function(typed)
    if typed and shown == here then
      M.set_filter(typed)
    end
  end)
end

--- Filters by what is typed; an empty text is every hit.
---@param typed string
function M.set_filter(typed)
  if not shown then
    return
  end
  local read, problem = timeline_module.parse_filter(typed)
  if read then
    shown.timeline:set_filter(read)
  else
    util.notify(problem --[[@as string]], vim.log.levels.ERROR)
  end
end

local function close()
  vim.cmd('bwipeout ' .. shown.buffer)
end

---@type riptrace.Key[]
local KEYS = {
  { '<CR>', open, 'open the hit; on a lane, list its hits from there' },
  { 'K', variables, 'show the variables of the hit' },
  { 'gf', open_source, 'go to the source of the hit' },
  { '+', zoom(0.5), 'zoom in, at the cursor' },
  { '-', zoom(2), 'zoom out' },
  {
    '<',
    on_timeline(function(timeline)
      timeline:pan(-PAN)
    end),
    'earlier',
  },
  {
    '>',
    on_timeline(function(timeline)
      timeline:pan(PAN)
    end),
    'later',
  },
  {
    'A',
    on_timeline(function(timeline)
      timeline:show_all()
    end),
    'show all of the session',
  },
  {
    'F',
    on_timeline(function(timeline)
      timeline:follow(not timeline.following)
    end),
    'follow the newest hit, or stop following',
  },
  { 'f', filter, 'filter' },
  {
    '[[',
    on_timeline(function(timeline)
      timeline:older()
    end),
    'older hits',
  },
  {
    ']]',
    on_timeline(function(timeline)
      timeline:newer()
    end),
    'newer hits',
  },
  {
    'r',
    on_timeline(function(timeline)
      timeline:load()
    end),
    'look again',
  },
  { 'q', close, 'close' },
}

--- Shows the buffer with the hits of this source.
---@param source riptrace.Source
function M.show(source)
  local buffer, made = view.open(M.NAME, M.FILETYPE, KEYS, HEIGHT)
  if made then
    shown = { buffer = buffer, targets = {} } --[[@as riptrace.TimelineView]]
    local here = shown
    vim.api.nvim_create_autocmd('BufWipeout', {
      buffer = buffer,
      once = true,
      callback = function()
        if shown == here then
          shown = nil
        end
      end,
    })
    vim.api.nvim_create_autocmd('WinResized', {
      callback = function()
        if shown ~= here then
          return true
        end
        local columns = M.columns(buffer)
        if here.timeline and here.timeline.columns ~= columns then
          here.timeline.columns = columns
          here.timeline:load()
        end
      end,
    })
  end
  M.set_source(source)
  if shown.timeline then
    shown.timeline:load()
  end
end

return M
