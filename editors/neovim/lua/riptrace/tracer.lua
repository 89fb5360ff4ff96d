--- Tracing without a debugger: runs `riptrace trace --json`, and answers the timeline's questions from the hits that
--- are kept. One trace at a time; its end takes its tracepoints out of the fleet.
local util = require('riptrace.util')

local M = {}

--- A line of JSON that is longer than this is no hit: values are cut by the agent long before.
local LINE_BYTES_MAX = 4 * 1024 * 1024
--- As the adapter: hits in one page.
local PAGE_HITS_MAX = 500
--- The last lines of standard error that are told when it ends by itself.
local SAID_BYTES_MAX = 2000

---@class riptrace.Trace
---@field what string the locations, as they were asked for
---@field process vim.SystemObj
---@field source riptrace.Source

---@type riptrace.Trace?
local running

---@return riptrace.Source?
function M.source()
  return running and running.source
end

---@return string? what is traced
function M.what()
  return running and running.what
end

--- Hits of a line of its output; nil for what is none.
---@param line string
---@return table?
function M.parse(line)
  local decoded, said = pcall(vim.json.decode, line, { luanil = { object = true, array = true } })
  return decoded and type(said) == 'table' and said or nil
end

--- The hit as the store keeps it, with its values, which no adapter is there to be asked for.
---@param said table an object of `--json` of the type "hit"
---@param local_path fun(file: string): string?
---@return riptrace.Hit?
function M.hit(said, local_path)
  local hit = require('riptrace.hits').parse({
    seq = said.seq,
    time = said.time,
    time_ns = said.time_ns,
    uncertainty_ns = said.uncertainty_ns,
    host = said.host,
    pid = said.pid,
    service = said.service,
    goroutine = said.goroutine,
    ['function'] = said['function'],
    file = said.file and local_path(said.file),
    line = said.line,
    message = said.message,
    undetermined_with = said.undetermined_with,
    late = said.late,
    duration_ns = said.duration_ns,
  })
  if hit then
    hit.values = said.values or {}
  end
  return hit
end

--- Local files of the builds' paths, each looked for once.
local function finder()
  local known = {}
  return function(file)
    if known[file] == nil then
      known[file] = require('riptrace.view').find_source(file) or false
    end
    return known[file] or nil
  end
end

--- Starts a trace.
---@param arguments string[] of `riptrace trace`: locations and flags
---@param config riptrace.Config
---@param on { hit: fun(hit: riptrace.Hit), drop: fun(count: integer), ended: fun() }
---@return riptrace.Source?
function M.start(arguments, config, on)
  M.stop()
  local root = util.root()
  local binary, problem = util.find_binary(config, root)
  if not binary then
    util.notify(problem --[[@as string]], vim.log.levels.ERROR)
    return nil
  end
  local command = { binary, 'trace', '--json' }
  vim.list_extend(command, util.fleet_flags(config))
  vim.list_extend(command, arguments)
  local rest, said = '', ''
  local local_path = finder()
  ---@type riptrace.Trace
  local trace
  local function received(line)
    local object = M.parse(line)
    if object and object.type == 'hit' then
      local hit = M.hit(object, local_path)
      if hit then
        on.hit(hit)
      end
    elseif object and object.type == 'drop' then
      on.drop(object.count or 0)
    end
  end
  local read = vim.schedule_wrap(function(data)
    if running ~= trace then
      return
    end
    local lines = vim.split(rest .. data, '\n', { plain = true })
    rest = table.remove(lines)
    if #rest > LINE_BYTES_MAX then
      rest = ''
    end
    vim.iter(lines):each(received)
  end)
  local started, process = pcall(
    vim.system,
    command,
    {
      cwd = root,
      stdout = function(_, data)
        if data then
          read(data)
        end
      end,
      stderr = function(_, data)
        said = (said .. (data or '')):sub(-SAID_BYTES_MAX)
      end,
    },
    vim.schedule_wrap(function(result)
      if running ~= trace then
        return
      end
      running = nil
      on.ended()
      if result.code ~= 0 then
        local words = vim.trim(said)
        util.notify(words ~= '' and words or ('riptrace trace ended with status %d'):format(result.code), vim.log.levels.ERROR)
      end
    end)
  )
  if not started then
    util.notify(tostring(process), vim.log.levels.ERROR)
    return nil
  end
  trace = { what = table.concat(arguments, ' '), process = process, source = M.source_of(require('riptrace').store()) }
  running = trace
  return trace.source
end

--- Ends the trace, which takes its tracepoints out. Returns whether there was one.
---@return boolean
function M.stop()
  local trace = running
  if not trace then
    return false
  end
  running = nil
  trace.process:kill('sigterm')
  return true
end

local function glob(pattern)
  return '^' .. vim.pesc(pattern):gsub('%%%*', '.*'):gsub('%%%?', '.') .. '$'
end

---@param filter riptrace.TimelineFilter
---@return fun(hit: riptrace.Hit): boolean
local function matcher(filter)
  local host, service = filter.host and glob(filter.host), filter.service and glob(filter.service)
  local part = filter.text and filter.text:lower()
  return function(hit)
    return (not host or hit.host:find(host) ~= nil)
      and (not service or (hit.service or ''):find(service) ~= nil)
      and (not filter.goroutine or hit.goroutine == filter.goroutine)
      and (not part or (hit.message .. ' ' .. (hit['function'] or '')):lower():find(part, 1, true) ~= nil)
  end
end

--- Nanoseconds since the whole second `second` of unix time. A time of 19 digits is too long for a Lua number, so the
--- two parts of the text are taken apart.
---@param time string RFC 3339
---@return integer second, integer nanoseconds
function M.split_time(time)
  local year, month, day, hour, minute, second, fraction = time:match('^(%d+)-(%d+)-(%d+)T(%d+):(%d+):(%d+)%.?(%d*)')
  if not year then
    return 0, 0
  end
  -- Days since 1970, as the civil calendar has them.
  local y, m = tonumber(year), tonumber(month)
  y = m <= 2 and y - 1 or y
  local era = math.floor(y / 400)
  local year_of_era = y - era * 400
  local day_of_year = math.floor((153 * (m + (m > 2 and -3 or 9)) + 2) / 5) + tonumber(day) - 1
  local day_of_era = year_of_era * 365 + math.floor(year_of_era / 4) - math.floor(year_of_era / 100) + day_of_year
  local days = era * 146097 + day_of_era - 719468
  local seconds = ((days * 24 + tonumber(hour)) * 60 + tonumber(minute)) * 60 + tonumber(second)
  return seconds, tonumber((fraction .. '000000000'):sub(1, 9))
end

--- Answers as the adapter does (DAP.md), from the hits that are kept.
---@param store riptrace.Hits
---@return riptrace.Source
function M.source_of(store)
  local origin
  local function at_ns(hit)
    if not origin then
      local first = store:list()[1] or hit
      origin = { M.split_time(first.time) }
    end
    local second, ns = M.split_time(hit.time)
    return (second - origin[1]) * 1e9 + ns - origin[2]
  end

  local function page(arguments)
    local list = store:list()
    local fits = matcher(arguments.filter or {})
    local wanted = math.min(arguments.count or PAGE_HITS_MAX, PAGE_HITS_MAX)
    local forward = arguments.from ~= nil
    local found, cut = {}, nil
    local first, last, step = 1, #list, 1
    if not forward then
      first, last, step = #list, 1, -1
    end
    for index = first, last, step do
      local hit = list[index]
      local meant = forward and hit.seq >= arguments.from or (not forward and hit.seq < (arguments.before or math.huge))
      if meant and #found == wanted then
        cut = forward and hit.seq or hit.seq + 1
        break
      end
      if meant and fits(hit) then
        local row = vim.tbl_extend('force', hit, { at_ns = at_ns(hit), label = hit.message, values = vim.NIL })
        row.undetermined_with = hit.undetermined_with or {}
        table.insert(found, forward and #found + 1 or 1, row)
      end
    end
    return {
      hits = found,
      next = forward and cut or nil,
      previous = not forward and cut or nil,
      oldest = list[1] and list[1].seq,
      newest = list[#list] and list[#list].seq,
      arrived = #list + store:forgotten(),
      evicted = store:forgotten(),
      dropped = store.dropped,
    }
  end

  local function overview(arguments)
    local list = store:list()
    local fits = matcher(arguments.filter or {})
    local buckets = arguments.buckets or 200
    local low, high = 0, 0
    for _, hit in ipairs(list) do
      low, high = math.min(low, at_ns(hit)), math.max(high, at_ns(hit))
    end
    local from, to = arguments.from_ns or low, arguments.to_ns or high + 1
    local lanes, order = {}, {}
    for _, hit in ipairs(list) do
      local at = at_ns(hit)
      if at >= from and at < to and fits(hit) then
        local service = hit.service or '?'
        if not lanes[service] then
          local counts, first = {}, {}
          for index = 1, buckets do
            counts[index], first[index] = 0, vim.NIL
          end
          lanes[service] = { service = service, hits = 0, counts = counts, first = first, uncertainty_ns = 0 }
          table.insert(order, service)
        end
        local lane = lanes[service]
        local bucket = math.floor((at - from) / (to - from) * buckets) + 1
        lane.hits = lane.hits + 1
        lane.counts[bucket] = lane.counts[bucket] + 1
        lane.first[bucket] = lane.first[bucket] == vim.NIL and hit.seq or lane.first[bucket]
        lane.uncertainty_ns = math.max(lane.uncertainty_ns, hit.uncertainty_ns or 0)
      end
    end
    table.sort(order)
    local services = vim.tbl_map(function(service)
      return lanes[service]
    end, order)
    return { from_ns = from, to_ns = to, buckets = buckets, services = services }
  end

  return {
    name = 'riptrace trace',
    ask = function(request, arguments, on_answer)
      local filter = arguments.filter or {}
      if filter.when then
        return on_answer('an expression needs a debug session: without one, filter by text')
      end
      on_answer(nil, request == 'timelinePage' and page(arguments) or overview(arguments))
    end,
    -- There is no debugger to show it: the place and the values are.
    open = function(hit)
      if hit.file then
        require('riptrace.view').open_source(hit.file, hit.line)
      end
      require('riptrace').show_hit(hit.seq)
    end,
  }
end

return M
