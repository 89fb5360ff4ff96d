--- Reading what another program said: each reader gives what was asked for, or raises an error that names the place.
--- Nothing is guessed, and no list is longer than its reader allows.
local M = {}

--- Without the null values that Neovim's JSON decoder leaves in.
---@param value any
---@return any
function M.without_null(value)
  if value == vim.NIL then
    return nil
  end
  if type(value) ~= 'table' then
    return value
  end
  local clean = {}
  for key, each in pairs(value) do
    clean[key] = M.without_null(each)
  end
  return clean
end

---@param value any
---@param place string
---@param expected string
---@return any
local function wrong(value, place, expected)
  local shown = vim.inspect(value):gsub('%s+', ' '):sub(1, 60)
  error({ decode = ('%s must be %s, not %s'):format(place, expected, shown) }, 0)
end

---@param value any
---@param place string
---@return table
function M.fields(value, place)
  return type(value) == 'table' and value or wrong(value, place, 'an object')
end

---@param value any
---@param place string
---@return string
function M.text(value, place)
  return type(value) == 'string' and value or wrong(value, place, 'a text')
end

---@param value any
---@param place string
---@return number
function M.quantity(value, place)
  return type(value) == 'number' and value == value and value or wrong(value, place, 'a number')
end

---@param value any
---@param place string
---@return integer
function M.count(value, place)
  local fits = type(value) == 'number' and value >= 0 and value % 1 == 0
  return fits and value or wrong(value, place, 'a whole number from 0')
end

--- A list of at most `max` entries; nil is the empty one.
---@generic T
---@param value any
---@param place string
---@param max integer
---@param read fun(value: any, place: string): T
---@return T[]
function M.list(value, place, max, read)
  if value == nil then
    return {}
  end
  if type(value) ~= 'table' then
    wrong(value, place, 'a list')
  end
  if #value > max then
    error({ decode = ('%s has %d entries; the most is %d'):format(place, #value, max) }, 0)
  end
  local found = {}
  for index, each in ipairs(value) do
    found[index] = read(each, ('%s[%d]'):format(place, index))
  end
  return found
end

--- What `read` gives for a value, or nil and what is wrong with it. Other errors are passed on.
---@generic T
---@param read fun(value: any): T
---@param value any
---@return T?, string?
function M.try(read, value)
  local passed, result = pcall(read, value)
  if passed then
    return result
  end
  if type(result) == 'table' and result.decode then
    return nil, result.decode .. '. Is the riptrace binary as new as this plugin?'
  end
  error(result, 0)
end

return M
