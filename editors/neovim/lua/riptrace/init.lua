--- RipTrace for Neovim: setup(), and the functions behind the commands. See :help riptrace.
local config_module = require('riptrace.config')
local hits_module = require('riptrace.hits')
local util = require('riptrace.util')

local M = {}

---@type riptrace.Config?
local config
---@type riptrace.DapState?
local dap_state
--- The hits of the session or of the trace, whichever began last.
---@type riptrace.Hits?
local store
--- The running session of nvim-dap that is RipTrace's.
---@type table?
local session
---@type riptrace.Source?
local source

--- What the Timeline buffer asks: a session's adapter, or the hits of a trace.
---@class riptrace.Source
---@field name string
---@field ask riptrace.Ask
---@field open fun(hit: riptrace.TimelineHit)

--- The configuration in force: the defaults before setup().
---@return riptrace.Config
function M.config()
  return config or assert(config_module.merge())
end

--- Whether setup() was called.
---@return boolean
function M.is_set_up()
  return config ~= nil
end

---@return riptrace.Hits
function M.store()
  store = store or hits_module.new(M.config().hits.keep_max)
  return store
end

--- The running session of nvim-dap that is RipTrace's, or nil.
---@return table?
function M.session()
  return session
end

--- Does something with a view, if it was ever shown.
local function with_view(name, act)
  local there = package.loaded['riptrace.' .. name]
  if there then
    act(there)
  end
end

---@param other riptrace.Source?
local function set_source(other)
  source = other
  with_view('timeline_view', function(timeline)
    timeline.set_source(other)
  end)
end

local function begin()
  M.store():clear()
  require('riptrace.marks').clear()
end

---@param hit riptrace.Hit
local function take(hit)
  M.store():add(hit)
  require('riptrace.marks').add(hit)
end

local function timeline_changed()
  with_view('timeline_view', function(timeline)
    timeline.changed()
  end)
end

local function fleet_changed()
  with_view('fleet_view', function(fleet)
    fleet.refresh()
  end)
end

---@type riptrace.DapListener
local listener = {
  begun = function(begun)
    begin()
    session = begun
    set_source(require('riptrace.dap').source_of(begun))
    fleet_changed()
  end,
  hit = take,
  timeline_changed = timeline_changed,
  fleet_changed = fleet_changed,
  ended = function(ended)
    if session == ended then
      session = nil
      set_source(nil)
      fleet_changed()
    end
  end,
}

--- Registers adapter and language server. May be called again with other options.
---@param options? table see |riptrace-options|
function M.setup(options)
  local merged, problem = config_module.merge(options)
  if not merged then
    util.notify(problem .. ' (see :help riptrace-options)', vim.log.levels.ERROR)
    return
  end
  config = merged
  store = hits_module.new(config.hits.keep_max)
  require('riptrace.marks').setup(config.marks)
  if config.dap.enable then
    local there, dap = pcall(require, 'dap')
    if there then
      dap_state = require('riptrace.dap').register(dap, config, listener)
    end
  end
  if config.lsp.enable then
    local missing = require('riptrace.lsp').enable(config)
    if missing then
      util.notify(missing, vim.log.levels.WARN)
    end
  elseif package.loaded['riptrace.lsp'] then
    require('riptrace.lsp').disable()
  end
end

--- The hits of the session or of the trace, oldest first.
---@return riptrace.Hit[]
function M.hits()
  return M.store():list()
end

--- Text for a status line: "120 hits, 3 dropped", or "" when no session runs.
---@return string
function M.status()
  local statistics = dap_state and dap_state.statistics
  if not statistics and require('riptrace.tracer').source() then
    local kept = M.store()
    statistics = { hits = #kept:list() + kept:forgotten(), dropped = kept.dropped }
  end
  if not statistics then
    return ''
  end
  local dropped = statistics.dropped > 0 and (', %d dropped'):format(statistics.dropped) or ''
  return ('%d hit%s%s'):format(statistics.hits, statistics.hits == 1 and '' or 's', dropped)
end

--- Opens the quickfix list with the hits of the session.
function M.quickfix()
  local list = M.hits()
  if #list == 0 then
    util.notify('no hits yet: set a breakpoint and start a session (:help riptrace-debug), or use :RipTrace')
    return
  end
  local forgotten = M.store():forgotten()
  local title = ('RipTrace: %d hits'):format(#list)
  if forgotten > 0 then
    title = ('%s, %d older ones not kept'):format(title, forgotten)
  end
  vim.fn.setqflist({}, ' ', { title = title, items = hits_module.quickfix_items(list) })
  vim.cmd('botright copen')
end

--- Shows the variables of a hit in a floating window.
---@param seq? string|integer number of the hit; nil: the newest one
function M.show_hit(seq)
  local number = seq and tonumber((tostring(seq):gsub('^#', ''))) or nil
  if seq and not number then
    util.notify(("'%s' is not the number of a hit"):format(seq), vim.log.levels.ERROR)
    return
  end
  local hit = M.store():find(number)
  if not hit then
    util.notify(number and ('hit %d is not among those kept'):format(number) or 'no hits yet', vim.log.levels.WARN)
    return
  end
  require('riptrace.dap').variable_lines(
    hit,
    vim.schedule_wrap(function(lines, problem)
      if not lines then
        util.notify(problem --[[@as string]], vim.log.levels.ERROR)
        return
      end
      local shown = { hits_module.text(hit), ('%s  %s:%d'):format(hit['function'] or '', hit.file or '?', hit.line) }
      vim.list_extend(shown, lines)
      vim.lsp.util.open_floating_preview(shown, '', { border = 'rounded', focus_id = 'riptrace.hit' })
    end)
  )
end

--- Shows the Fleet buffer.
function M.show_fleet()
  require('riptrace.fleet_view').show()
end

--- Shows the Timeline buffer with the hits of the session or of the trace.
function M.show_timeline()
  if not source then
    util.notify('no session is running: start one (:help riptrace-debug), or use :RipTrace', vim.log.levels.WARN)
    return
  end
  require('riptrace.timeline_view').show(source)
end

--- Shows the timeline with this filter; an empty one is every hit.
---@param typed? string
function M.filter_timeline(typed)
  M.show_timeline()
  if source then
    require('riptrace.timeline_view').set_filter(typed or '')
  end
end

--- Opens a hit of the session in the debugger.
---@param seq? string|integer
function M.go_to_hit(seq)
  local number = seq and tonumber((tostring(seq):gsub('^#', '')))
  if not number or not source then
    util.notify(source and 'give the number of a hit' or 'no session is running', vim.log.levels.WARN)
    return
  end
  local kept = M.store():find(number)
  source.open(kept or { seq = number })
end

--- Traces without a debugger: the given locations, else the line of the cursor. Its hits are in the Timeline, in the
--- quickfix list and behind their lines.
---@param words? string[] locations and flags of `riptrace trace`
function M.trace(words)
  if not words or #words == 0 then
    local name = vim.api.nvim_buf_get_name(0)
    if name == '' or vim.bo.buftype ~= '' then
      util.notify('put the cursor on the line of a source file, or give FILE:LINE or a function', vim.log.levels.WARN)
      return
    end
    words = { ('%s:%d'):format(name, vim.api.nvim_win_get_cursor(0)[1]) }
  end
  begin()
  local began = require('riptrace.tracer').start(words, M.config(), {
    hit = function(hit)
      take(hit)
      timeline_changed()
    end,
    drop = function(count)
      M.store().dropped = M.store().dropped + count
      timeline_changed()
    end,
    ended = function()
      util.notify('the trace has ended')
    end,
  })
  if began then
    set_source(began)
    util.notify(('tracing %s: :RipTraceStop ends it'):format(table.concat(words, ' ')))
  end
end

--- Ends the trace or the session; their probes are taken out.
function M.stop()
  local traced = require('riptrace.tracer').stop()
  if session then
    require('dap').terminate()
  elseif not traced then
    util.notify('nothing is traced')
  end
end

--- Starts a session for these processes with nvim-dap.
---@param selector string such as "service=cart"
function M.attach(selector)
  local there, dap = pcall(require, 'dap')
  if not there then
    util.notify('this needs nvim-dap; without it, :RipTrace LOCATION --where SELECTOR', vim.log.levels.WARN)
    return
  end
  local configuration = require('riptrace.dap').configuration(M.config())
  configuration.selector = selector
  configuration.name = 'RipTrace: ' .. selector
  dap.run(configuration)
end

--- Takes a breakpoint of nvim-dap out. Returns whether there was one.
---@param file string
---@param line integer
---@return boolean
function M.remove_breakpoint(file, line)
  local there, breakpoints = pcall(require, 'dap.breakpoints')
  local path = there and file and require('riptrace.view').find_source(file)
  if not path then
    return false
  end
  for buffer, points in pairs(breakpoints.get()) do
    if vim.fs.normalize(vim.api.nvim_buf_get_name(buffer)) == path then
      for _, point in ipairs(points) do
        if point.line == line then
          breakpoints.remove(buffer, line)
          if session then
            session:set_breakpoints(breakpoints.get(buffer))
          end
          return true
        end
      end
    end
  end
  return false
end

--- Shows behind the lines around the cursor what a tracepoint can read there, or hides it again.
function M.show_readable()
  require('riptrace.lsp').show_readable()
end

function M.restart_language_server()
  require('riptrace.lsp').restart()
end

return M
