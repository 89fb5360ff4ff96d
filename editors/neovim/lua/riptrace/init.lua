--- RipTrace for Neovim: setup(), and the functions behind the commands. See :help riptrace.
local config_module = require('riptrace.config')
local hits_module = require('riptrace.hits')
local util = require('riptrace.util')

local M = {}

---@type riptrace.Config?
local config
---@type riptrace.DapState?
local dap_state

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

--- Registers adapter and language server. May be called again with other options.
---@param options? table see |riptrace-options|
function M.setup(options)
  local merged, problem = config_module.merge(options)
  if not merged then
    util.notify(problem .. ' (see :help riptrace-options)', vim.log.levels.ERROR)
    return
  end
  config = merged
  if config.dap.enable then
    local there, dap = pcall(require, 'dap')
    if there then
      dap_state = require('riptrace.dap').register(dap, config)
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

--- The hits of the session, oldest first.
---@return riptrace.Hit[]
function M.hits()
  return dap_state and dap_state.hits:list() or {}
end

--- Text for a status line: "120 hits, 3 dropped", or "" when no session runs.
---@return string
function M.status()
  local statistics = dap_state and dap_state.statistics
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
    util.notify('no hits yet: set a breakpoint and start a session (:help riptrace-debug)')
    return
  end
  local forgotten = dap_state and dap_state.hits:forgotten() or 0
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
  local hit = dap_state and dap_state.hits:find(number)
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

--- Shows the answer of `riptrace ps` in a scratch window.
function M.show_fleet()
  local root = util.root()
  local binary, problem = util.find_binary(M.config(), root)
  if not binary then
    util.notify(problem --[[@as string]], vim.log.levels.ERROR)
    return
  end
  local command = vim.list_extend({ binary, 'ps' }, util.fleet_flags(M.config()))
  local result, failure = util.run(command, root)
  if not result or result.code ~= 0 then
    local said = result and vim.trim(result.stderr or '') or failure
    util.notify(said ~= '' and said or ('riptrace ps ended with status %d'):format(result.code), vim.log.levels.ERROR)
    return
  end
  vim.cmd('botright new')
  local buffer = vim.api.nvim_get_current_buf()
  vim.api.nvim_buf_set_lines(buffer, 0, -1, false, vim.split(vim.trim(result.stdout), '\n'))
  vim.bo[buffer].buftype = 'nofile'
  vim.bo[buffer].bufhidden = 'wipe'
  vim.bo[buffer].modifiable = false
  vim.bo[buffer].filetype = 'riptrace-fleet'
  vim.wo.wrap = false
end

function M.restart_language_server()
  require('riptrace.lsp').restart()
end

return M
