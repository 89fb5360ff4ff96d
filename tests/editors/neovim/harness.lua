--- Runs the tests of one file inside headless Neovim: `nvim --headless -u NONE -i NONE -n -l FILE`.
--- Prints one line a test, and exits 1 when one failed. Waits have deadlines; there are no sleeps.
local M = {}

--- As in support.mjs: how long the first hits and one answer may take.
M.FIRST_HIT_MS = 60000
M.ANSWER_MS = 30000

local here = vim.fs.dirname(vim.fs.abspath(debug.getinfo(1, 'S').source:sub(2)))
--- The root of the repository.
M.repo = vim.fs.dirname(vim.fs.dirname(vim.fs.dirname(here)))

---@param name string
---@return string
function M.required(name)
  local value = vim.env[name]
  if not value or value == '' then
    error(name .. ' is not set: start the tests with tests/editors/run.sh', 0)
  end
  return value
end

--- What was notified, oldest first: { message, level }.
M.notified = {}
vim.notify = function(message, level)
  table.insert(M.notified, { message = message, level = level })
end

--- Where the plugin is: run.sh has packed and unpacked it, as a user's package directory.
M.plugin = M.required('RIPTRACE_NVIM_PACKAGES') .. '/pack/riptrace/opt/riptrace'
vim.opt.packpath:prepend(M.required('RIPTRACE_NVIM_PACKAGES'))
vim.cmd.packadd('riptrace')
vim.cmd('filetype plugin on')

--- Pumps the event loop until `done` is true, or fails and says what did not happen.
---@param milliseconds integer
---@param what string
---@param done fun(): any
function M.wait(milliseconds, what, done)
  if not vim.wait(milliseconds, done, 20) then
    local said = vim.tbl_map(function(each)
      return each.message
    end, M.notified)
    error(('%s: not within %d ms; notified: %s'):format(what, milliseconds, vim.inspect(said)), 2)
  end
end

---@param got any
---@param expected any
---@param what? string
function M.equal(got, expected, what)
  if not vim.deep_equal(got, expected) then
    error(('%s: got %s, expected %s'):format(what or 'value', vim.inspect(got), vim.inspect(expected)), 2)
  end
end

---@param text string?
---@param pattern string a Lua pattern
function M.match(text, pattern)
  if type(text) ~= 'string' or not text:find(pattern) then
    error(('%s does not match %s'):format(vim.inspect(text), pattern), 2)
  end
end

--- A file of the shop with its line that ends in `// MARKER`, or FILE:LINE from the environment.
---@param variable string
---@param file string
---@param marker string
---@return string path, integer line
function M.location(variable, file, marker)
  local shop = M.required('RIPTRACE_SHOP')
  local given = vim.env[variable]
  if given and given ~= '' then
    local path, line = given:match('^(.+):(%d+)$')
    assert(path, ("%s is '%s': expected FILE:LINE"):format(variable, given))
    return shop .. '/' .. path, assert(tonumber(line))
  end
  local path = shop .. '/' .. file
  for number, text in ipairs(vim.fn.readfile(path)) do
    if vim.endswith(vim.trim(text), '// ' .. marker) then
      return path, number
    end
  end
  error(('%s has no line that ends in // %s'):format(path, marker))
end

--- Writes the screen, cell by cell with its colours, into the artefact NAME.json: pictures.mjs draws it.
---@param name string
function M.picture(name)
  local normal = vim.api.nvim_get_hl(0, { name = 'Normal' })
  local screen = { foreground = normal.fg, background = normal.bg, rows = {} }
  vim.cmd('redraw!')
  for row = 0, vim.o.lines - 1 do
    -- Neighbours of one style are one piece.
    local pieces, last = {}, nil
    for column = 0, vim.o.columns - 1 do
      local cell = vim.api.nvim__inspect_cell(1, row, column)
      local style = next(cell[2]) and cell[2] or vim.empty_dict()
      if last and vim.deep_equal(last[2], style) then
        last[1] = last[1] .. cell[1]
      else
        last = { cell[1], style }
        table.insert(pieces, last)
      end
    end
    table.insert(screen.rows, pieces)
  end
  local file = assert(io.open(('%s/tests/artefacts/%s.json'):format(M.repo, name), 'w'))
  file:write(vim.json.encode(screen))
  file:close()
end

local tests = {}

---@param name string
---@param run fun()
function M.test(name, run)
  table.insert(tests, { name = name, run = run })
end

--- Runs the tests in order and ends Neovim.
function M.finish()
  local failures = 0
  for _, test in ipairs(tests) do
    M.notified = {}
    local started = vim.uv.hrtime()
    local passed, problem = xpcall(test.run, debug.traceback)
    local took = (vim.uv.hrtime() - started) / 1e6
    io.stdout:write(('%s %s (%.0f ms)\n'):format(passed and 'ok    ' or 'FAILED', test.name, took))
    if not passed then
      failures = failures + 1
      io.stdout:write(tostring(problem):gsub('^', '       '):gsub('\n', '\n       '), '\n')
    end
  end
  io.stdout:write(('%d tests, %d failed\n'):format(#tests, failures))
  -- A debug adapter or language server that is still there would keep Neovim waiting.
  for _, client in ipairs(vim.lsp.get_clients()) do
    client:stop(true)
  end
  os.exit(failures == 0 and #tests > 0 and 0 or 1)
end

return M
