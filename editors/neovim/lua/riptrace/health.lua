--- :checkhealth riptrace
local util = require('riptrace.util')

local M = {}

local OLDEST_NVIM = 'nvim-0.10'

---@return string? binary
local function check_binary(config)
  vim.health.start('riptrace: binary')
  local binary, problem = util.find_binary(config)
  if not binary then
    vim.health.error(problem --[[@as string]])
    return nil
  end
  local result, failure = util.run({ binary, '--version' }, util.root())
  if not result or result.code ~= 0 then
    vim.health.error(('%s does not run: %s'):format(binary, failure or vim.trim(result.stderr)))
    return nil
  end
  vim.health.ok(('%s (%s)'):format(vim.trim(result.stdout), binary))
  return binary
end

local function check_editor()
  vim.health.start('riptrace: editor')
  local version = tostring(vim.version())
  if vim.fn.has('nvim-0.11') == 1 then
    vim.health.ok('Neovim ' .. version)
  elseif vim.fn.has(OLDEST_NVIM) == 1 then
    vim.health.ok(('Neovim %s (0.11 has a better language server client)'):format(version))
  else
    vim.health.error(('Neovim %s is too old'):format(version), 'install Neovim 0.10 or newer')
  end
  if require('riptrace').is_set_up() then
    vim.health.ok('setup() was called')
  else
    vim.health.warn('setup() was not called: no adapter and no language server', "call require('riptrace').setup()")
  end
end

local function check_dap(config)
  vim.health.start('riptrace: debugging')
  if not config.dap.enable then
    vim.health.info('switched off (dap.enable)')
    return
  end
  local there, dap = pcall(require, 'dap')
  if not there then
    vim.health.warn('nvim-dap is not installed: no breakpoints; the language server works without it', {
      'install nvim-dap, then call setup() again',
    })
  elseif dap.adapters.riptrace then
    vim.health.ok('nvim-dap has the adapter and its configurations')
  else
    vim.health.warn('nvim-dap is installed, but the adapter is not registered', 'call setup() after nvim-dap is loaded')
  end
end

local function check_language_server(config)
  vim.health.start('riptrace: language server')
  if not config.lsp.enable then
    vim.health.info('switched off (lsp.enable)')
    return
  end
  local clients = vim.lsp.get_clients({ name = require('riptrace.lsp').NAME })
  if #clients == 0 then
    vim.health.info('not running: it starts with the first file of ' .. table.concat(config.filetypes, ', '))
  end
  for _, client in ipairs(clients) do
    local buffers = vim.tbl_count(client.attached_buffers)
    vim.health.ok(('running for %d buffer(s) in %s'):format(buffers, client.root_dir or client.config.root_dir or '?'))
  end
end

--- What `riptrace doctor --json` found, one object a line.
local function check_fleet(config, binary)
  vim.health.start('riptrace: fleet (riptrace doctor)')
  local command = vim.list_extend({ binary, 'doctor', '--json' }, util.fleet_flags(config))
  local result, failure = util.run(command, util.root(), util.DOCTOR_DEADLINE_MS)
  if not result then
    vim.health.error(failure --[[@as string]])
    return
  end
  local found = 0
  for line in vim.gsplit(vim.trim(result.stdout or ''), '\n', { trimempty = true }) do
    local decoded, finding = pcall(vim.json.decode, line)
    if decoded and type(finding) == 'table' and finding.type == 'check' then
      found = found + 1
      local text = ('%s: %s'):format(finding.check, finding.detail)
      local mend = finding.mend ~= '' and finding.mend or nil
      if finding.state == 'ok' then
        vim.health.ok(text)
      elseif finding.state == 'warn' then
        vim.health.warn(text, mend)
      else
        vim.health.error(text, mend)
      end
    end
  end
  if found == 0 then
    vim.health.error(
      ('riptrace doctor found nothing (exit status %d): %s'):format(result.code, vim.trim(result.stderr or ''))
    )
  end
end

function M.check()
  local config = require('riptrace').config()
  check_editor()
  local binary = check_binary(config)
  check_dap(config)
  check_language_server(config)
  if binary then
    check_fleet(config, binary)
  end
end

return M
