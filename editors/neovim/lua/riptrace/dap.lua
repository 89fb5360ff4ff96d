--- Registers the debug adapter and its configurations with nvim-dap, and hands on what its events say.
--- Is only loaded when nvim-dap is there; `dap` is passed in, which is also how the tests give a stand-in.
local hits = require('riptrace.hits')
local repl = require('riptrace.repl')
local util = require('riptrace.util')

local M = {}

M.TYPE = 'riptrace'
M.NAME = 'RipTrace: attach to the fleet'

--- An adapter has nothing to load before it answers; a machine under load still needs a moment to start it.
local INITIALIZE_SECONDS = 10

---@class riptrace.Statistics
---@field hits integer
---@field dropped integer
---@field hosts integer
---@field processes integer

---@class riptrace.DapState
---@field statistics? riptrace.Statistics of the running session

--- Who is told what a session says.
---@class riptrace.DapListener
---@field begun fun(session: table)
---@field hit fun(hit: riptrace.Hit)
---@field timeline_changed fun()
---@field fleet_changed fun()
---@field ended fun(session: table)

--- The attach arguments for this configuration.
---@param config riptrace.Config
---@return table
function M.configuration(config)
  return {
    type = M.TYPE,
    request = 'attach',
    name = M.NAME,
    cwd = '${workspaceFolder}',
    nats = config.nats,
    creds = config.creds and vim.fs.normalize(config.creds) or nil,
    selector = config.dap.selector,
    stopOnHit = config.dap.stop_on_hit,
    rate = config.dap.rate,
  }
end

--- Hits as nvim-dap shows them: one line of text, with where it was, because nvim-dap drops source and line.
---@param body table the body of an output event
---@param source_links boolean
---@return string
function M.output_text(body, source_links)
  -- The REPL does not render colours.
  local text = (body.output or ''):gsub('\27%[[%d;]*m', '')
  if text:sub(-1) ~= '\n' then
    -- Without it the next output would be glued to this line.
    text = text .. '\n'
  end
  local path = type(body.source) == 'table' and body.source.path
  if not source_links or type(path) ~= 'string' or type(body.line) ~= 'number' then
    return text
  end
  return ('%s  %s:%d\n'):format(text:sub(1, -2), vim.fn.fnamemodify(path, ':.'), body.line)
end

---@param dap table the module of nvim-dap
---@param config riptrace.Config
---@param listener riptrace.DapListener
---@return riptrace.DapState
function M.register(dap, config, listener)
  ---@type riptrace.DapState
  local state = {}
  ---@type table<table, { reference: integer, row?: integer }> the last output event of a session, until its hit event
  --- takes it
  local outputs = setmetatable({}, { __mode = 'k' })

  dap.adapters[M.TYPE] = function(resolve, configuration)
    local cwd = configuration.cwd or util.root()
    local binary, problem = util.find_binary(config, cwd)
    if not binary then
      util.notify(problem --[[@as string]], vim.log.levels.ERROR)
      return
    end
    resolve({
      type = 'executable',
      command = binary,
      args = { 'dap' },
      options = { cwd = cwd, initialize_timeout_sec = INITIALIZE_SECONDS },
    })
  end

  for _, filetype in ipairs(config.filetypes) do
    local known = dap.configurations[filetype] or {}
    -- A second setup() replaces what the first one added.
    known = vim.tbl_filter(function(other)
      return not (other.type == M.TYPE and other.name == M.NAME)
    end, known)
    table.insert(known, M.configuration(config))
    dap.configurations[filetype] = known
  end

  dap.defaults[M.TYPE].on_output = function(session, body)
    if body.category == 'telemetry' then
      return
    end
    local line = require('dap.repl').append(M.output_text(body, config.dap.source_links), '$', { newline = false })
    if (body.variablesReference or 0) > 0 then
      -- It gives the number of the line that it wrote on, which was the last one.
      outputs[session] = { reference = body.variablesReference, row = line and math.max(line - 1, 0) }
    end
  end

  dap.listeners.after['event_riptrace/hit'][M.TYPE] = function(session, body)
    local hit = hits.parse(body)
    if hit then
      local output = outputs[session]
      outputs[session] = nil
      hit.session = session
      if output then
        hit.reference = output.reference
        if output.row then
          repl.remember(output.row, hit)
        end
      end
      listener.hit(hit)
    end
  end
  dap.listeners.after['event_riptrace/timelineChanged'][M.TYPE] = listener.timeline_changed
  dap.listeners.after['event_riptrace/fleetChanged'][M.TYPE] = listener.fleet_changed
  dap.listeners.after['event_riptrace/statistics'][M.TYPE] = function(_, body)
    state.statistics = body
  end
  dap.listeners.after.event_initialized[M.TYPE] = function(session)
    if session.config.type ~= M.TYPE then
      return
    end
    state.statistics = nil
    repl.clear()
    listener.begun(session)
    -- Called however the session ends, also by a crash of the adapter.
    session.on_close[M.TYPE] = function()
      state.statistics = nil
      listener.ended(session)
    end
  end
  return state
end

--- The session's adapter as what the Timeline buffer asks.
---@param session table
---@return riptrace.Source
function M.source_of(session)
  return {
    name = session.config.name or M.NAME,
    ask = function(request, arguments, on_answer)
      session:request('riptrace/' .. request, arguments, function(err, body)
        on_answer(err and (err.message or vim.inspect(err)) or nil, body)
      end)
    end,
    open = function(hit)
      session:request('riptrace/openHit', { seq = hit.seq }, function(err)
        if err then
          util.notify(('hit %d cannot be shown: %s'):format(hit.seq, err.message or vim.inspect(err)), vim.log.levels.ERROR)
        end
      end)
    end,
  }
end

--- The lines of a hit's variables: name, type, value, and one level of what is inside.
---@param hit riptrace.Hit
---@param on_lines fun(lines: string[]?, problem: string?)
function M.variable_lines(hit, on_lines)
  local session = hit.session
  if hit.values then
    local lines = {}
    for _, value in ipairs(hit.values) do
      M.value_lines(value, 0, lines)
    end
    return on_lines(lines)
  end
  if not hit.reference or not session then
    return on_lines(nil, ('hit %d came without variables'):format(hit.seq))
  end
  local function fetch(reference, on_variables)
    session:request('variables', { variablesReference = reference }, function(err, response)
      if err then
        return on_lines(nil, ('the variables of hit %d: %s'):format(hit.seq, err.message or vim.inspect(err)))
      end
      on_variables(response.variables)
    end)
  end
  -- An output event's reference has exactly one child, the hit, whose children are the variables.
  fetch(hit.reference, function(records)
    if #records ~= 1 or records[1].variablesReference == 0 then
      return on_lines({})
    end
    fetch(records[1].variablesReference, function(variables)
      local parts = {}
      -- One more than the answers to come, until all questions are asked: an answer may come at once.
      local waiting = 1
      local function answered()
        waiting = waiting - 1
        if waiting == 0 then
          on_lines(vim.iter(parts):flatten():totable())
        end
      end
      for index, variable in ipairs(variables) do
        parts[index] = { M.variable_line(variable, 0) }
        if variable.variablesReference > 0 then
          waiting = waiting + 1
          fetch(variable.variablesReference, function(children)
            for _, child in ipairs(children) do
              table.insert(parts[index], M.variable_line(child, 1))
            end
            answered()
          end)
        end
      end
      answered()
    end)
  end)
end

--- A value as `--json` has it, and one level of what is inside.
---@param value table
---@param depth integer
---@param lines string[] is added to
function M.value_lines(value, depth, lines)
  local exact = value.status == nil or value.status == 'exact'
  local shown = exact and tostring(value.value) or ('%s <%s>'):format(value.value or '', tostring(value.status))
  table.insert(lines, M.variable_line({ name = value.name, type = value.type, value = shown }, depth))
  if depth == 0 then
    for _, child in ipairs(value.children or {}) do
      M.value_lines(child, 1, lines)
    end
  end
end

---@param variable table
---@param depth integer
---@return string
function M.variable_line(variable, depth)
  local kind = variable.type and variable.type ~= '' and (' ' .. variable.type) or ''
  local text = ('%s%s%s = %s'):format(('  '):rep(depth), variable.name, kind, variable.value)
  return (text:gsub('\n', '\\n'))
end

return M
