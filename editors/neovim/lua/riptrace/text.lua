--- Numbers and times as a person reads them, and lines made of coloured pieces. No state.
local M = {}

--- 1234567 as "1,234,567".
---@param value number
---@return string
function M.number(value)
  local digits = ('%d'):format(value)
  local grouped = digits:reverse():gsub('(%d%d%d)', '%1,'):reverse()
  return (grouped:gsub('^(%-?),', '%1'))
end

---@param value integer
---@param one string
---@param many? string
---@return string
function M.plural(value, one, many)
  return ('%s %s'):format(M.number(value), value == 1 and one or (many or one .. 's'))
end

--- Nanoseconds with three digits: "41 µs".
---@param ns number
---@return string
function M.duration(ns)
  for _, unit in ipairs({ { 1e9, 's' }, { 1e6, 'ms' }, { 1e3, 'µs' } }) do
    if math.abs(ns) >= unit[1] then
      local value = ns / unit[1]
      local digits = math.abs(value) >= 100 and 0 or math.abs(value) >= 10 and 1 or 2
      local shown = ('%.' .. digits .. 'f'):format(value)
      return (shown:find('%.') and shown:gsub('%.?0+$', '') or shown) .. ' ' .. unit[2]
    end
  end
  return ('%d ns'):format(ns)
end

--- Hits per second: "0.4/s", "12/s".
---@param rate number
---@return string
function M.rate(rate)
  if rate > 0 and rate < 10 then
    return (('%.1f'):format(rate):gsub('%.0$', '')) .. '/s'
  end
  return M.number(math.floor(rate + 0.5)) .. '/s'
end

--- A time since the start as "+1.25 s", with as many digits as `step` (nanoseconds) needs.
---@param at_ns number
---@param step number
---@return string
function M.since_start(at_ns, step)
  local size, unit = 1, 'ns'
  for _, each in ipairs({ { 1e9, 's' }, { 1e6, 'ms' }, { 1e3, 'µs' } }) do
    if math.max(math.abs(at_ns), step) >= each[1] then
      size, unit = each[1], each[2]
      break
    end
  end
  local digits = math.min(9, math.max(0, math.ceil(math.log10(size / step) - 1e-9)))
  local form = '%s%.' .. ('%d'):format(digits) .. 'f %s'
  return form:format(at_ns < 0 and '−' or '+', math.abs(at_ns) / size, unit)
end

--- The time of day of an RFC 3339 time.
---@param time string
---@return string
function M.clock_time(time)
  return time:match('T([%d:.]+)') or time
end

--- Text on one line that a buffer can hold.
---@param text string
---@return string
function M.one_line(text)
  return (vim.trim(text):gsub('[\r\n]+', '\\n'))
end

--- A line of a buffer: pieces of text, each with a highlight group or none.
---@alias riptrace.Chunks { [1]: string, [2]?: string }[]

--- Writes lines into a buffer, with their colours.
---@param buffer integer
---@param namespace integer
---@param lines riptrace.Chunks[]
function M.write(buffer, namespace, lines)
  local texts, colours = {}, {}
  for row, chunks in ipairs(lines) do
    local parts, column = {}, 0
    for _, chunk in ipairs(chunks) do
      local from = column
      column = column + #chunk[1]
      table.insert(parts, chunk[1])
      if chunk[2] and column > from then
        table.insert(colours, { row - 1, from, column, chunk[2] })
      end
    end
    texts[row] = table.concat(parts)
  end
  vim.bo[buffer].modifiable = true
  vim.api.nvim_buf_set_lines(buffer, 0, -1, false, texts)
  vim.bo[buffer].modifiable = false
  vim.api.nvim_buf_clear_namespace(buffer, namespace, 0, -1)
  for _, colour in ipairs(colours) do
    local row, from, to, group = unpack(colour)
    vim.api.nvim_buf_set_extmark(buffer, namespace, row, from, { end_col = to, hl_group = group })
  end
end

--- `text` in a column of this width: filled up, or cut with an ellipsis.
---@param text string
---@param width integer
---@return string
function M.column(text, width)
  local cells = vim.fn.strdisplaywidth(text)
  if cells <= width then
    return text .. (' '):rep(width - cells)
  end
  return vim.fn.strcharpart(text, 0, width - 1) .. '…'
end

return M
