--- The options of setup(): defaults, merging, and what is wrong with them.
--- Does not touch the editor's state.
local M = {}

---@class riptrace.Config
---@field path? string The `riptrace` binary; nil: $PATH, then target/release of the checkout, ~/.cargo/bin, ~/.local/bin
---@field nats? string URL of the fleet's NATS; nil: $NATS_URL, then riptrace.toml, then the `riptrace up` of this machine
---@field creds? string NATS credentials file
---@field filetypes string[] Where breakpoints and the language server are offered
---@field dap riptrace.DapConfig
---@field lsp riptrace.LspConfig
---@field hits riptrace.HitsConfig
---@field marks riptrace.MarksConfig

---@class riptrace.DapConfig
---@field enable boolean Register with nvim-dap when it is installed
---@field selector? string Which processes: "host=web-*,service=cart"; nil: every process that runs the line
---@field stop_on_hit boolean The first hit of a breakpoint opens the timeline
---@field rate? integer|"none" Hits per second of one process; nil: the default of riptrace
---@field source_links boolean Write file:line at the end of each hit in the REPL

---@class riptrace.LspConfig
---@field enable boolean Start the language server
---@field inlay_hints boolean Show last values in the text
---@field code_lens boolean Show hit counts above the line

---@class riptrace.HitsConfig
---@field keep_max integer How many hits :RipTraceHits remembers, the newest ones; 1 to 100000

---@class riptrace.MarksConfig
---@field signs boolean Show a sign on lines with hits
---@field virtual_text boolean|"auto" Show what the newest hit said behind the line; "auto": where no inlay hints do

---@type riptrace.Config
M.defaults = {
  path = nil,
  nats = nil,
  creds = nil,
  filetypes = { 'go', 'rust', 'c', 'cpp' },
  dap = { enable = true, selector = nil, stop_on_hit = true, rate = nil, source_links = true },
  lsp = { enable = true, inlay_hints = true, code_lens = true },
  hits = { keep_max = 10000 },
  marks = { signs = true, virtual_text = 'auto' },
}

--- More hits than this make a quickfix list that Neovim takes seconds to open.
M.HITS_KEEP_MAX = 100000

local function is_positive_integer(value)
  return type(value) == 'number' and value >= 1 and value % 1 == 0
end

--- What each option may be: a Lua type, or a check with the words for it.
local SHAPE = {
  path = { 'string', optional = true },
  nats = { 'string', optional = true },
  creds = { 'string', optional = true },
  filetypes = {
    function(value)
      return type(value) == 'table'
        and vim.islist(value)
        and vim.iter(value):all(function(each)
          return type(each) == 'string'
        end)
    end,
    words = 'a list of filetypes',
  },
  dap = {
    enable = { 'boolean' },
    selector = { 'string', optional = true },
    stop_on_hit = { 'boolean' },
    rate = {
      function(value)
        return value == 'none' or is_positive_integer(value)
      end,
      words = 'a whole number of hits per second from 1, or "none"',
      optional = true,
    },
    source_links = { 'boolean' },
  },
  lsp = {
    enable = { 'boolean' },
    inlay_hints = { 'boolean' },
    code_lens = { 'boolean' },
  },
  hits = {
    keep_max = {
      function(value)
        return is_positive_integer(value) and value <= M.HITS_KEEP_MAX
      end,
      words = ('a whole number from 1 to %d'):format(M.HITS_KEEP_MAX),
    },
  },
  marks = {
    signs = { 'boolean' },
    virtual_text = {
      function(value)
        return type(value) == 'boolean' or value == 'auto'
      end,
      words = 'true, false or "auto"',
    },
  },
}

---@param value any
---@param rule table
---@return string? words what it should have been
local function mismatch(value, rule)
  if value == nil then
    return not rule.optional and (rule.words or rule[1]) or nil
  end
  if type(rule[1]) == 'function' then
    return not rule[1](value) and rule.words or nil
  end
  return type(value) ~= rule[1] and ('a ' .. rule[1]) or nil
end

---@param options table
---@param shape table
---@param prefix string
---@return string?
local function problem_of(options, shape, prefix)
  for _, key in ipairs(vim.fn.sort(vim.tbl_keys(options))) do
    if shape[key] == nil then
      local known = vim.fn.sort(vim.tbl_keys(shape))
      return ("'%s%s' is not an option: there are %s"):format(prefix, key, table.concat(known, ', '))
    end
  end
  for _, key in ipairs(vim.fn.sort(vim.tbl_keys(shape))) do
    local rule, value = shape[key], options[key]
    if rule[1] == nil then
      if type(value) ~= 'table' then
        return ("'%s%s' must be a table, not %s"):format(prefix, key, vim.inspect(value))
      end
      local problem = problem_of(value, rule, prefix .. key .. '.')
      if problem then
        return problem
      end
    else
      local words = mismatch(value, rule)
      if words then
        return ("'%s%s' must be %s, not %s"):format(prefix, key, words, vim.inspect(value))
      end
    end
  end
end

--- The defaults with these options over them, or nil and what is wrong.
---@param options? table
---@return riptrace.Config?, string?
function M.merge(options)
  if options ~= nil and type(options) ~= 'table' then
    return nil, ('setup() takes a table of options, not %s'):format(vim.inspect(options))
  end
  local merged = vim.tbl_deep_extend('force', M.defaults, options or {})
  local problem = problem_of(merged, SHAPE, '')
  if problem then
    return nil, problem
  end
  return merged
end

return M
