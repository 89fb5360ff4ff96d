--- Hits in nvim-dap's REPL: a line each, whose variables are shown under it and hidden again with a key.
local view = require('riptrace.view')

local M = {}

--- Lines of variables under one hit: more are read in :RipTraceHit.
local LINES_MAX = 60
--- Lines of the REPL that can be opened, the newest ones.
local ROWS_MAX = 10000

local namespace = vim.api.nvim_create_namespace('riptrace.repl')
local opened = vim.api.nvim_create_namespace('riptrace.repl.opened')

---@type table<integer, riptrace.Hit> by the id of the extmark on its line
local rows = {}
local newest, oldest = 0, 1

---@return integer? buffer of the REPL
local function repl_buffer()
  return vim.iter(vim.api.nvim_list_bufs()):find(function(buffer)
    return vim.api.nvim_buf_is_loaded(buffer) and vim.bo[buffer].filetype == 'dap-repl'
  end)
end

--- Remembers which hit is on a line of the REPL.
---@param row integer from 0
---@param hit riptrace.Hit
function M.remember(row, hit)
  local buffer = repl_buffer()
  if not buffer or row >= vim.api.nvim_buf_line_count(buffer) then
    return
  end
  view.define_groups()
  if not vim.b[buffer].riptrace_keys then
    vim.b[buffer].riptrace_keys = true
    vim.keymap.set('n', 'K', M.toggle, { buffer = buffer, desc = 'RipTrace: show the variables of this hit, or hide them' })
  end
  newest = newest + 1
  rows[newest] = hit
  vim.api.nvim_buf_set_extmark(buffer, namespace, row, 0, { id = newest })
  while newest - oldest >= ROWS_MAX do
    rows[oldest] = nil
    vim.api.nvim_buf_del_extmark(buffer, namespace, oldest)
    oldest = oldest + 1
  end
end

--- The hit on a line of the REPL.
---@param buffer integer
---@param row integer from 0
---@return riptrace.Hit?, integer? mark
function M.hit_at(buffer, row)
  -- A REPL that was cleared leaves the marks of its lines behind on the first one: the last one is the line's own.
  local marks = vim.api.nvim_buf_get_extmarks(buffer, namespace, { row, 0 }, { row, -1 }, {})
  local mark = marks[#marks] and marks[#marks][1]
  return mark and rows[mark], mark
end

--- Shows the variables of the hit under the cursor, or hides them.
function M.toggle()
  local buffer = vim.api.nvim_get_current_buf()
  local row = vim.api.nvim_win_get_cursor(0)[1] - 1
  local hit, mark = M.hit_at(buffer, row)
  if not hit then
    return
  end
  if #vim.api.nvim_buf_get_extmark_by_id(buffer, opened, mark, {}) > 0 then
    vim.api.nvim_buf_del_extmark(buffer, opened, mark)
    return
  end
  require('riptrace.dap').variable_lines(
    hit,
    vim.schedule_wrap(function(lines, problem)
      if not vim.api.nvim_buf_is_valid(buffer) then
        return
      end
      lines = lines or { problem }
      local shown = vim.list_slice(lines, 1, LINES_MAX)
      if #lines > LINES_MAX then
        table.insert(shown, ('... %d more: :RipTraceHit %d'):format(#lines - LINES_MAX, hit.seq))
      end
      vim.api.nvim_buf_set_extmark(buffer, opened, row, 0, {
        id = mark,
        virt_lines = vim.tbl_map(function(line)
          return { { '    ' .. line:gsub('\n', '\\n'), problem and 'RipTraceRefused' or 'RipTraceValue' } }
        end, shown),
      })
    end)
  )
end

--- The REPL was emptied.
function M.clear()
  rows, newest, oldest = {}, 0, 1
  local buffer = repl_buffer()
  if buffer then
    vim.api.nvim_buf_clear_namespace(buffer, namespace, 0, -1)
    vim.api.nvim_buf_clear_namespace(buffer, opened, 0, -1)
  end
end

return M
