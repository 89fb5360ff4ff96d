--- What the Fleet and the Timeline buffer have in common: a scratch buffer with keys, shown in one window.
local M = {}

---@class riptrace.Key
---@field [1] string the key
---@field [2] fun() what it does
---@field [3] string what it does, in words

--- Highlight groups, each a link that a colour scheme or the user may replace.
local GROUPS = {
  RipTraceArmed = 'DiagnosticOk',
  RipTraceWaiting = 'DiagnosticWarn',
  RipTraceRefused = 'DiagnosticError',
  RipTraceWeak = 'Comment',
  RipTraceSign = 'DiagnosticInfo',
  RipTraceValue = 'DiagnosticVirtualTextInfo',
  RipTraceOpen = 'Visual',
  RipTraceLane1 = 'Function',
  RipTraceLane2 = 'String',
  RipTraceLane3 = 'Constant',
  RipTraceLane4 = 'Type',
}

function M.define_groups()
  for name, link in pairs(GROUPS) do
    vim.api.nvim_set_hl(0, name, { link = link, default = true })
  end
end

--- The buffer of this name, made when it is not there, in a window of this tab page.
---@param name string such as "riptrace://fleet"
---@param filetype string
---@param keys riptrace.Key[]
---@param height integer of a new window, in lines
---@return integer buffer
---@return boolean made
function M.open(name, filetype, keys, height)
  M.define_groups()
  local buffer = vim.fn.bufnr(name)
  local made = buffer < 0
  if made then
    buffer = vim.api.nvim_create_buf(false, true)
    vim.api.nvim_buf_set_name(buffer, name)
    vim.bo[buffer].bufhidden = 'wipe'
    vim.bo[buffer].modifiable = false
    vim.bo[buffer].filetype = filetype
    for _, key in ipairs(keys) do
      vim.keymap.set('n', key[1], key[2], { buffer = buffer, nowait = true, desc = 'RipTrace: ' .. key[3] })
    end
    vim.keymap.set('n', 'g?', function()
      M.show_keys(keys)
    end, { buffer = buffer, nowait = true, desc = 'RipTrace: show the keys' })
  end
  local window = vim.fn.bufwinid(buffer)
  if window >= 0 then
    vim.api.nvim_set_current_win(window)
  else
    vim.cmd(('botright %dsplit'):format(height))
    vim.api.nvim_win_set_buf(0, buffer)
    vim.wo.wrap = false
    vim.wo.number = false
    vim.wo.relativenumber = false
    vim.wo.signcolumn = 'no'
    vim.wo.winfixheight = true
  end
  return buffer, made
end

---@param keys riptrace.Key[]
function M.show_keys(keys)
  local lines = vim.tbl_map(function(key)
    return ('%-6s %s'):format(key[1], key[3])
  end, keys)
  vim.lsp.util.open_floating_preview(lines, '', { border = 'rounded', focus_id = 'riptrace.keys' })
end

--- Opens a source in another window than this one.
---@param file string
---@param line integer from 1
---@return boolean found
function M.open_source(file, line)
  local path = M.find_source(file)
  if not path then
    return false
  end
  local here = vim.api.nvim_get_current_win()
  local target = vim.iter(vim.api.nvim_tabpage_list_wins(0)):find(function(window)
    local buffer = vim.api.nvim_win_get_buf(window)
    return window ~= here and vim.bo[buffer].buftype == '' and vim.api.nvim_win_get_config(window).relative == ''
  end)
  if target then
    vim.api.nvim_set_current_win(target)
  else
    vim.cmd('aboveleft split')
  end
  if vim.fs.normalize(vim.api.nvim_buf_get_name(0)) ~= path then
    vim.cmd.edit(vim.fn.fnameescape(path))
  end
  local last = vim.api.nvim_buf_line_count(0)
  vim.api.nvim_win_set_cursor(0, { math.max(1, math.min(line, last)), 0 })
  vim.cmd('normal! zvzz')
  return true
end

--- Files of one name that are compared with the path of a build.
local SAME_NAME_MAX = 500

--- The local file that a build's path means: itself, else the one under the checkout with the longest common end.
---@param file string
---@return string?
function M.find_source(file)
  if vim.startswith(file, '/') and vim.uv.fs_stat(file) then
    return vim.fs.normalize(file)
  end
  local root = require('riptrace.util').root()
  local found = vim.fs.find(vim.fs.basename(file), { path = root, type = 'file', limit = SAME_NAME_MAX })
  local best, most = nil, 0
  for _, path in ipairs(found) do
    local shared = M.common_end(path, file)
    if shared > most then
      best, most = path, shared
    end
  end
  return best and vim.fs.normalize(best)
end

--- How many path segments, from the file's name backwards, two paths share.
---@param left string
---@param right string
---@return integer
function M.common_end(left, right)
  local a = vim.split(left, '/', { trimempty = true })
  local b = vim.split(right, '/', { trimempty = true })
  local shared = 0
  while shared < math.min(#a, #b) and a[#a - shared] == b[#b - shared] do
    shared = shared + 1
  end
  return shared
end

return M
