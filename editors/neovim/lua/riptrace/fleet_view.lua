--- The Fleet buffer: asks for the fleet while it is shown, and what its keys do. What it says is in fleet.lua.
local fleet = require('riptrace.fleet')
local text = require('riptrace.text')
local util = require('riptrace.util')
local view = require('riptrace.view')

local M = {}

M.NAME = 'riptrace://fleet'
M.FILETYPE = 'riptrace-fleet'

--- How often the fleet is looked at while its buffer is shown: an answer of the adapter is cheap, `ps` is a process.
local SESSION_REFRESH_MS = 2000
local PS_REFRESH_MS = 10000
local HEIGHT = 18

local namespace = vim.api.nvim_create_namespace('riptrace.fleet')

---@class riptrace.FleetView
---@field buffer integer
---@field targets table<integer, riptrace.FleetTarget>
---@field looks table
---@field timer uv.uv_timer_t
---@field looking boolean

---@type riptrace.FleetView?
local shown

--- The fleet, from the session's adapter or from `riptrace ps`.
---@param on_fleet fun(answer: riptrace.Fleet?, problem: string?)
local function ask(on_fleet)
  local source = require('riptrace').session()
  if source then
    source:request('riptrace/fleet', vim.empty_dict(), function(err, answer)
      if err then
        return on_fleet(nil, err.message or vim.inspect(err))
      end
      on_fleet(fleet.parse(answer))
    end)
    return
  end
  local config, root = require('riptrace').config(), util.root()
  local binary, problem = util.find_binary(config, root)
  if not binary then
    return on_fleet(nil, problem)
  end
  local command = vim.list_extend({ binary, 'ps', '--json' }, util.fleet_flags(config))
  local options = { cwd = root, text = true, timeout = util.COMMAND_DEADLINE_MS }
  vim.system(
    command,
    options,
    vim.schedule_wrap(function(result)
      -- Status 3: there are hosts, and no process that can be traced.
      if result.code == 0 or (result.code == 3 and result.stdout ~= '') then
        return on_fleet(fleet.parse_ps(result.stdout))
      end
      local said = vim.trim(result.stderr or '')
      on_fleet(nil, said ~= '' and said or ('riptrace ps ended with status %d'):format(result.code))
    end)
  )
end

---@param lines riptrace.Chunks[]
---@param targets table<integer, riptrace.FleetTarget>
local function draw(lines, targets)
  if not shown or not vim.api.nvim_buf_is_valid(shown.buffer) then
    return
  end
  local windows = vim.fn.win_findbuf(shown.buffer)
  local cursors = vim.tbl_map(vim.api.nvim_win_get_cursor, windows)
  text.write(shown.buffer, namespace, lines)
  shown.targets = targets
  for index, window in ipairs(windows) do
    local row = math.min(cursors[index][1], #lines)
    vim.api.nvim_win_set_cursor(window, { math.max(row, 1), cursors[index][2] })
  end
end

--- Looks at the fleet now; while a look is under way, that one counts.
function M.refresh()
  local here = shown
  if not here or here.looking then
    return
  end
  here.looking = true
  ask(function(answer, problem)
    here.looking = false
    if shown ~= here then
      return
    end
    if answer then
      here.looks = fleet.add_rates(answer, here.looks, vim.uv.hrtime() / 1e6)
      local lines, targets = fleet.lines(answer)
      draw(lines, targets)
    else
      local lines = { { { 'The fleet cannot be shown', 'RipTraceRefused' } }, {} }
      for line in vim.gsplit(vim.trim(problem or ''), '\n', { plain = true }) do
        table.insert(lines, { { line } })
      end
      draw(lines, {})
    end
    local pause = require('riptrace').session() and SESSION_REFRESH_MS or PS_REFRESH_MS
    if not here.timer:is_closing() then
      here.timer:start(pause, 0, vim.schedule_wrap(M.refresh))
    end
  end)
end

---@return riptrace.FleetTarget?
local function target()
  return shown and shown.targets[vim.api.nvim_win_get_cursor(0)[1]]
end

local function open_source()
  local at = target()
  if not at or not at.file then
    util.notify('there is no source behind this line')
  elseif not view.open_source(at.file, at.line or 1) then
    util.notify(('no file of this checkout is %s'):format(at.file), vim.log.levels.WARN)
  end
end

local function attach()
  local at = target()
  if not at or not at.selector then
    util.notify('put the cursor on a host, a process or a build')
    return
  end
  require('riptrace').attach(at.selector)
end

local function yank()
  local at = target()
  if at and at.selector then
    vim.fn.setreg(vim.v.register, at.selector)
    util.notify(at.selector .. ' is in register ' .. vim.v.register)
  end
end

local function stop()
  local at = target()
  if not at or not at.tracepoint then
    util.notify('put the cursor on a tracepoint')
    return
  end
  if not require('riptrace').remove_breakpoint(at.file, at.line) then
    util.notify(('%s is no breakpoint of this Neovim: it ends with its session'):format(at.tracepoint.location))
  end
end

local function close()
  vim.cmd('bwipeout ' .. shown.buffer)
end

---@type riptrace.Key[]
local KEYS = {
  { '<CR>', open_source, 'go to the source' },
  { 'a', attach, 'trace these processes (nvim-dap)' },
  { 'y', yank, 'yank the selector' },
  { 's', stop, 'stop this tracepoint' },
  { 'r', M.refresh, 'look again' },
  { 'q', close, 'close' },
}

--- Shows the buffer, and looks at the fleet.
function M.show()
  local buffer, made = view.open(M.NAME, M.FILETYPE, KEYS, HEIGHT)
  if made then
    shown = { buffer = buffer, targets = {}, looks = {}, timer = assert(vim.uv.new_timer()), looking = false }
    local here = shown
    text.write(buffer, namespace, { { { 'Looking for the fleet...', 'RipTraceWeak' } } })
    vim.api.nvim_create_autocmd('BufWipeout', {
      buffer = buffer,
      once = true,
      callback = function()
        here.timer:stop()
        here.timer:close()
        if shown == here then
          shown = nil
        end
      end,
    })
  end
  M.refresh()
end

return M
