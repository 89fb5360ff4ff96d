-- Defines the commands. Everything else is loaded by the first use of one of them, or by setup().
if vim.g.loaded_riptrace then
  return
end
vim.g.loaded_riptrace = true

for name, command in pairs({
  RipTrace = { fn = 'trace', desc = 'Trace the line of the cursor, or these locations, without a debugger', nargs = '*' },
  RipTraceStop = { fn = 'stop', desc = 'End the trace or the session' },
  RipTraceHits = { fn = 'quickfix', desc = 'Put the hits of this session into the quickfix list' },
  RipTraceHit = { fn = 'show_hit', desc = 'Show the variables of a hit', nargs = '?' },
  RipTraceGoto = { fn = 'go_to_hit', desc = 'Open a hit in the debugger', nargs = 1 },
  RipTraceTimeline = { fn = 'show_timeline', desc = 'Show the hits over time, by service' },
  RipTraceFilter = { fn = 'filter_timeline', desc = 'Show the timeline with a filter', nargs = '*' },
  RipTraceFleet = { fn = 'show_fleet', desc = 'Show hosts, processes, builds and tracepoints' },
  RipTraceReadable = { fn = 'show_readable', desc = 'Show or hide what can be read around the line of the cursor' },
  RipTraceRestart = { fn = 'restart_language_server', desc = 'Restart the language server' },
}) do
  vim.api.nvim_create_user_command(name, function(call)
    local arguments = name == 'RipTrace' and call.fargs or (call.args ~= '' and call.args or nil)
    require('riptrace')[command.fn](arguments)
  end, { desc = command.desc, nargs = command.nargs or 0, complete = name == 'RipTrace' and 'file' or nil })
end
