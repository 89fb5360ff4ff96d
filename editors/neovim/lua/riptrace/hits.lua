--- The hits that the adapter reported, oldest first, as many as the configuration keeps.
--- Knows nothing of nvim-dap: dap.lua feeds it.
local M = {}

--- One `riptrace/hit` event.
---@class riptrace.Hit
---@field seq integer Position in the session's order over the fleet
---@field time string RFC 3339
---@field uncertainty_ns integer
---@field host string
---@field pid integer
---@field service string
---@field goroutine? integer
---@field function string
---@field file? string Absolute path in the local checkout; nil when the line is not in it
---@field line integer
---@field message string
---@field reference? integer variablesReference of the hit's output event
---@field session? table The session of nvim-dap that it belongs to
---@field values? table[] Its values, where no session is there to be asked for them

---@class riptrace.Hits
---@field dropped integer Hits that were reported as missing
---@field private keep_max integer
---@field private first integer
---@field private last integer
---@field private items table<integer, riptrace.Hit>
local Hits = {}
Hits.__index = Hits

---@param keep_max integer
---@return riptrace.Hits
function M.new(keep_max)
  return setmetatable({ keep_max = keep_max, first = 1, last = 0, items = {}, dropped = 0 }, Hits)
end

---@param hit riptrace.Hit
function Hits:add(hit)
  self.last = self.last + 1
  self.items[self.last] = hit
  if self.last - self.first + 1 > self.keep_max then
    self.items[self.first] = nil
    self.first = self.first + 1
  end
end

function Hits:clear()
  self.items = {}
  self.first, self.last, self.dropped = 1, 0, 0
end

--- How many hits were forgotten because more than keep_max came.
---@return integer
function Hits:forgotten()
  return self.first - 1
end

---@return riptrace.Hit[]
function Hits:list()
  local list = {}
  for index = self.first, self.last do
    table.insert(list, self.items[index])
  end
  return list
end

--- The hit with this number, or the newest one.
---@param seq? integer
---@return riptrace.Hit?
function Hits:find(seq)
  if not seq then
    return self.items[self.last]
  end
  for index = self.last, self.first, -1 do
    if self.items[index].seq == seq then
      return self.items[index]
    end
  end
end

--- The hit that an event's body describes, or nil when it does not: a wrong hit is never shown.
---@param body any
---@return riptrace.Hit?
function M.parse(body)
  if type(body) ~= 'table' then
    return nil
  end
  for key, kind in pairs({ seq = 'number', line = 'number', host = 'string', message = 'string' }) do
    if type(body[key]) ~= kind then
      return nil
    end
  end
  local hit = {}
  for key, value in pairs(body) do
    -- nvim-dap's JSON decoder turns null into vim.NIL.
    hit[key] = value ~= vim.NIL and value or nil
  end
  return hit
end

--- The text of one hit in a list: where it happened, then what it says.
---@param hit riptrace.Hit
---@return string
function M.text(hit)
  local who = ('%s %s %s'):format(hit.host, hit.service or '?', hit.pid or '?')
  local goroutine = hit.goroutine and (' g%d'):format(hit.goroutine) or ''
  return ('#%d %s %s%s: %s'):format(hit.seq, hit.time or '', who, goroutine, vim.trim(hit.message))
end

--- Items for setqflist(). A hit without a local file is listed too, but is no place to jump to.
---@param list riptrace.Hit[]
---@return table[]
function M.quickfix_items(list)
  return vim.tbl_map(function(hit)
    if not hit.file then
      return { text = M.text(hit), valid = 0 }
    end
    return { filename = hit.file, lnum = hit.line, text = M.text(hit), valid = 1 }
  end, list)
end

return M
