--- Starts the language server with the built-in client, and shows its inlay hints and code lenses.
local util = require('riptrace.util')

local M = {}

M.NAME = 'riptrace'

local GROUP = 'riptrace.lsp'

---@param config riptrace.Config
---@param binary string
---@return vim.lsp.ClientConfig
local function client_config(config, binary)
  local command = { binary, 'lsp' }
  vim.list_extend(command, util.fleet_flags(config))
  local capabilities = vim.lsp.protocol.make_client_capabilities()
  -- The client asks again for code lenses when the server says so; see refresh_code_lenses.
  capabilities.workspace = capabilities.workspace or {}
  capabilities.workspace.codeLens = { refreshSupport = true }
  return {
    name = M.NAME,
    cmd = command,
    capabilities = capabilities,
    handlers = {
      ['workspace/codeLens/refresh'] = function(_, _, context)
        M.refresh_code_lenses(context.client_id)
        return vim.NIL
      end,
    },
  }
end

--- The filetypes of sources, and that of riptrace.toml and of scenarios.
---@param config riptrace.Config
---@return string[]
local function filetypes(config)
  local all = vim.deepcopy(config.filetypes)
  if not vim.list_contains(all, 'toml') then
    table.insert(all, 'toml')
  end
  return all
end

--- Whether the server has something to say of a buffer: of other TOML files it has not.
---@param config riptrace.Config
---@param buffer integer
---@return boolean
function M.serves(config, buffer)
  local name = vim.fs.basename(vim.api.nvim_buf_get_name(buffer))
  return vim.list_contains(config.filetypes, vim.bo[buffer].filetype)
    or name == 'riptrace.toml'
    or name == 'scenario.toml'
    or vim.endswith(name, '.scenario.toml')
end

--- Asks again for the code lenses of every loaded buffer of a client.
---@param client_id integer
function M.refresh_code_lenses(client_id)
  local client = vim.lsp.get_client_by_id(client_id)
  for buffer in pairs(client and client.attached_buffers or {}) do
    if vim.api.nvim_buf_is_loaded(buffer) then
      vim.lsp.codelens.refresh({ bufnr = buffer })
    end
  end
end

---@param config riptrace.Config
---@param buffer integer
local function show(config, buffer)
  if config.lsp.inlay_hints and vim.lsp.inlay_hint then
    vim.lsp.inlay_hint.enable(true, { bufnr = buffer })
  end
  if config.lsp.code_lens then
    vim.lsp.codelens.refresh({ bufnr = buffer })
    vim.api.nvim_create_autocmd({ 'BufEnter', 'InsertLeave', 'BufWritePost' }, {
      group = vim.api.nvim_create_augroup(GROUP .. '.lens.' .. buffer, { clear = true }),
      buffer = buffer,
      desc = 'RipTrace: ask again for hit counts',
      callback = function()
        vim.lsp.codelens.refresh({ bufnr = buffer })
      end,
    })
  end
end

---@param config riptrace.Config
---@return string? problem why there is no language server
function M.enable(config)
  local group = vim.api.nvim_create_augroup(GROUP, { clear = true })
  local binary, problem = util.find_binary(config)
  if not binary then
    return problem
  end
  vim.api.nvim_create_autocmd('LspAttach', {
    group = group,
    desc = 'RipTrace: show hit counts and values',
    callback = function(event)
      local client = vim.lsp.get_client_by_id(event.data.client_id)
      if client and client.name == M.NAME then
        show(config, event.buf)
      end
    end,
  })
  local client = client_config(config, binary)
  if vim.lsp.config and vim.lsp.enable then
    vim.lsp.config(
      M.NAME,
      vim.tbl_extend('force', client, {
        filetypes = filetypes(config),
        root_dir = function(buffer, on_root)
          if M.serves(config, buffer) then
            on_root(util.root(buffer))
          end
        end,
      })
    )
    vim.lsp.enable(M.NAME)
    return
  end
  -- Neovim 0.10 has no vim.lsp.config.
  vim.api.nvim_create_autocmd('FileType', {
    group = group,
    pattern = filetypes(config),
    desc = 'RipTrace: start the language server',
    callback = function(event)
      if not M.serves(config, event.buf) then
        return
      end
      vim.lsp.start(vim.tbl_extend('force', client, { root_dir = util.root(event.buf) }), { bufnr = event.buf })
    end,
  })
end

--- No server for files that are opened from now on; running ones end.
function M.disable()
  vim.api.nvim_create_augroup(GROUP, { clear = true })
  if vim.lsp.enable then
    vim.lsp.enable(M.NAME, false)
  end
  for _, client in ipairs(vim.lsp.get_clients({ name = M.NAME })) do
    client:stop()
  end
end

--- Asks the server to show, behind the lines around the cursor, what a tracepoint can read there; where that is shown, to
--- hide it. The server says itself how it went.
function M.show_readable()
  local buffer = vim.api.nvim_get_current_buf()
  local client = vim.lsp.get_clients({ name = M.NAME, bufnr = buffer })[1]
  if not client then
    util.notify('no language server runs for this buffer (:checkhealth riptrace)', vim.log.levels.WARN)
    return
  end
  local at = { uri = vim.uri_from_bufnr(buffer), line = vim.api.nvim_win_get_cursor(0)[1] - 1 }
  client:request('workspace/executeCommand', { command = 'riptrace.show', arguments = { at } }, function(problem)
    if problem then
      util.notify(problem.message, vim.log.levels.WARN)
    end
  end, buffer)
end

--- Ends the running servers and starts them again for the buffers that they served.
function M.restart()
  local buffers = {}
  local clients = vim.lsp.get_clients({ name = M.NAME })
  for _, client in ipairs(clients) do
    vim.list_extend(buffers, vim.tbl_keys(client.attached_buffers))
    client:stop()
  end
  vim.wait(util.COMMAND_DEADLINE_MS, function()
    return #vim.lsp.get_clients({ name = M.NAME }) == 0
  end, 20)
  for _, buffer in ipairs(buffers) do
    if vim.api.nvim_buf_is_loaded(buffer) then
      vim.api.nvim_exec_autocmds('FileType', { buffer = buffer })
    end
  end
end

return M
