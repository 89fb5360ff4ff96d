--- Finding the binary and the checkout, running the binary, telling the user. No state.
local M = {}

--- How long `riptrace ps` and `--version` may take: they have shorter deadlines of their own.
M.COMMAND_DEADLINE_MS = 15000
--- How long `riptrace doctor` may take: it also asks other programs, such as pip, which take seconds on a busy machine.
M.DOCTOR_DEADLINE_MS = 60000

---@param message string
---@param level? integer vim.log.levels
function M.notify(message, level)
  vim.notify('RipTrace: ' .. message, level or vim.log.levels.INFO, { title = 'RipTrace' })
end

--- The root of the checkout that a buffer belongs to, else the current directory.
---@param buffer? integer
---@return string
function M.root(buffer)
  local name = vim.api.nvim_buf_get_name(buffer or 0)
  local from = name ~= '' and name or vim.uv.cwd()
  return vim.fs.root(from, { 'riptrace.toml', '.git', 'go.mod', 'Cargo.toml' }) or vim.uv.cwd() --[[@as string]]
end

--- Where the binary is looked for when no path is set, in order.
---@param root string
---@return string[]
function M.candidates(root)
  local places = {}
  for directory in vim.gsplit(vim.env.PATH or '', ':', { plain = true }) do
    -- A relative entry of $PATH would mean another file in every directory: it is left out.
    if vim.startswith(directory, '/') then
      table.insert(places, directory .. '/riptrace')
    end
  end
  table.insert(places, root .. '/target/release/riptrace')
  table.insert(places, vim.fs.normalize('~/.cargo/bin/riptrace'))
  table.insert(places, vim.fs.normalize('~/.local/bin/riptrace'))
  return places
end

--- The binary, or nil and what to do. A path that the user set is the only one tried.
---@param config riptrace.Config
---@param root? string
---@return string?, string?
function M.find_binary(config, root)
  if config.path then
    local path = vim.fs.normalize(config.path)
    if vim.fn.executable(path) == 1 and vim.startswith(path, '/') then
      return path
    end
    return nil,
      ("the option path names '%s', which is not an absolute path to a file that can be run: correct it, or leave it out to search $PATH"):format(
        config.path
      )
  end
  for _, place in ipairs(M.candidates(root or M.root())) do
    if vim.fn.executable(place) == 1 then
      return place
    end
  end
  return nil,
    'no riptrace binary on $PATH, in target/release of the checkout, in ~/.cargo/bin or in ~/.local/bin: '
      .. 'build it (cargo build --release) or copy it to ~/.local/bin, or give setup() its path'
end

--- Flags that say which fleet is meant; the binary's own defaults hold for what is not set.
---@param config riptrace.Config
---@return string[]
function M.fleet_flags(config)
  local flags = {}
  if config.nats then
    vim.list_extend(flags, { '--nats', config.nats })
  end
  if config.creds then
    vim.list_extend(flags, { '--creds', vim.fs.normalize(config.creds) })
  end
  return flags
end

--- Runs the binary and waits for it.
---@param command string[]
---@param cwd string
---@param deadline? integer milliseconds; `COMMAND_DEADLINE_MS` when left out
---@return vim.SystemCompleted? result
---@return string? problem when it could not be started or did not end in time
function M.run(command, cwd, deadline)
  deadline = deadline or M.COMMAND_DEADLINE_MS
  local started, process = pcall(vim.system, command, { cwd = cwd, text = true, timeout = deadline })
  if not started then
    return nil, tostring(process)
  end
  local result = process:wait()
  -- vim.system reports a missed deadline as exit status 124.
  if result.code == 124 then
    return nil, ('%s did not end within %d s'):format(table.concat(command, ' '), deadline / 1000)
  end
  return result
end

return M
