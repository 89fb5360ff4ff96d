--- Signs and virtual text in the sources: how often a line was hit, and what the newest hit said.
local text = require('riptrace.text')
local view = require('riptrace.view')

local M = {}

--- What changes more often than this is drawn once: nobody reads faster.
local REDRAW_MS = 250
--- Lower than that of nvim-dap's signs (21): where one column is shown, it is the breakpoint's.
local PRIORITY = 10
--- Characters of a value that are shown behind the line.
local SHOWN_MAX = 120
--- Lines with hits that are remembered: far more than anybody sets breakpoints on.
local LINES_MAX = 10000

local namespace = vim.api.nvim_create_namespace('riptrace.marks')

---@class riptrace.Mark
---@field hits integer
---@field last string What the newest hit said

---@type table<string, table<integer, riptrace.Mark>> by file, by line from 1
local files = {}
local lines_kept = 0
---@type riptrace.MarksConfig
local config = { signs = true, virtual_text = 'auto' }
local waiting = false

--- Where it is drawn: loaded buffers, by their path.
local function buffers()
  local found = {}
  for _, buffer in ipairs(vim.api.nvim_list_bufs()) do
    if vim.api.nvim_buf_is_loaded(buffer) and vim.bo[buffer].buftype == '' then
      found[vim.fs.normalize(vim.api.nvim_buf_get_name(buffer))] = buffer
    end
  end
  return found
end

--- The language server shows last values itself: then there is no need for them twice.
local function wants_text(buffer)
  if config.virtual_text ~= 'auto' then
    return config.virtual_text == true
  end
  local served = #vim.lsp.get_clients({ bufnr = buffer, name = 'riptrace' }) > 0
  return not (served and vim.lsp.inlay_hint and vim.lsp.inlay_hint.is_enabled({ bufnr = buffer }))
end

--- What stands behind a line.
---@param mark riptrace.Mark
---@return string
function M.text(mark)
  local said = text.one_line(mark.last)
  local short = vim.fn.strchars(said) > SHOWN_MAX and vim.fn.strcharpart(said, 0, SHOWN_MAX) .. '…' or said
  return ('%s: %s'):format(text.plural(mark.hits, 'hit'), short)
end

---@param buffer integer
---@param lines table<integer, riptrace.Mark>
local function draw_buffer(buffer, lines)
  vim.api.nvim_buf_clear_namespace(buffer, namespace, 0, -1)
  local last = vim.api.nvim_buf_line_count(buffer)
  local with_text = wants_text(buffer)
  for line, mark in pairs(lines) do
    if line >= 1 and line <= last and (config.signs or with_text) then
      vim.api.nvim_buf_set_extmark(buffer, namespace, line - 1, 0, {
        sign_text = config.signs and '»' or nil,
        sign_hl_group = config.signs and 'RipTraceSign' or nil,
        number_hl_group = config.signs and 'RipTraceSign' or nil,
        priority = PRIORITY,
        virt_text = with_text and { { '  ' .. M.text(mark), 'RipTraceValue' } } or nil,
        virt_text_pos = 'eol',
      })
    end
  end
end

local function draw()
  view.define_groups()
  for path, buffer in pairs(buffers()) do
    if files[path] then
      draw_buffer(buffer, files[path])
    end
  end
end

local function schedule()
  if waiting then
    return
  end
  waiting = true
  vim.defer_fn(function()
    waiting = false
    draw()
  end, REDRAW_MS)
end

---@param marks riptrace.MarksConfig
function M.setup(marks)
  config = marks
  local group = vim.api.nvim_create_augroup('riptrace.marks', { clear = true })
  vim.api.nvim_create_autocmd({ 'BufReadPost', 'LspAttach', 'ColorScheme' }, {
    group = group,
    desc = 'RipTrace: show the hits of its lines',
    callback = schedule,
  })
  schedule()
end

--- Counts a hit at its line.
---@param hit riptrace.Hit
function M.add(hit)
  if not hit.file or not (config.signs or config.virtual_text) then
    return
  end
  local path = vim.fs.normalize(hit.file)
  files[path] = files[path] or {}
  local mark = files[path][hit.line]
  if not mark then
    if lines_kept >= LINES_MAX then
      return
    end
    lines_kept = lines_kept + 1
    mark = { hits = 0, last = '' }
    files[path][hit.line] = mark
  end
  mark.hits = mark.hits + 1
  mark.last = hit.message
  schedule()
end

--- Takes all of them away.
function M.clear()
  files, lines_kept = {}, 0
  for _, buffer in ipairs(vim.api.nvim_list_bufs()) do
    if vim.api.nvim_buf_is_valid(buffer) then
      vim.api.nvim_buf_clear_namespace(buffer, namespace, 0, -1)
    end
  end
end

return M
