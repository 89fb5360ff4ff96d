--- The plugin under the real nvim-dap, against a running fleet. Needs NVIM_DAP_DIR, a checkout of nvim-dap.
local here = vim.fs.dirname(vim.fs.abspath(debug.getinfo(1, 'S').source:sub(2)))
package.path = here .. '/?.lua;' .. package.path
local h = require('harness')

vim.opt.runtimepath:prepend(h.required('NVIM_DAP_DIR'))
local dap = require('dap')
local repl = require('dap.repl')
local riptrace = require('riptrace')

local file, line = h.location('RIPTRACE_BP', 'cart/cart.go', 'BP cart-add')
local log_file, log_line = h.location('RIPTRACE_LOGPOINT', 'cart/cart.go', 'BP cart-apply')

vim.cmd.cd(h.required('RIPTRACE_SHOP'))
riptrace.setup({ path = h.required('RIPTRACE_BIN'), nats = h.required('RIPTRACE_NATS'), lsp = { enable = false } })

--- Every `stopped` event of the session.
local stops = {}
dap.listeners.after.event_stopped['test'] = function(_, body)
  table.insert(stops, body)
end

--- Does something, waits for the stop that follows and its frame, and returns the number of the hit that is shown.
local function hit_after(what, action, milliseconds)
  local before = #stops
  action()
  h.wait(milliseconds or h.ANSWER_MS, what, function()
    local session = dap.session()
    local frame = session and session.current_frame
    return #stops > before and frame and frame.scopes
  end)
  return assert(tonumber((stops[#stops].description or ''):match('^Hit (%d+)')), vim.inspect(stops[#stops]))
end

local function repl_lines()
  local buffer = vim.iter(vim.api.nvim_list_bufs()):find(function(each)
    return vim.bo[each].filetype == 'dap-repl'
  end)
  return buffer and vim.api.nvim_buf_get_lines(buffer, 0, -1, false) or {}
end

h.test('a logpoint writes one line a hit into the REPL, with its place', function()
  vim.cmd.edit(log_file)
  vim.api.nvim_win_set_cursor(0, { log_line, 0 })
  dap.set_breakpoint(nil, nil, 'sum is {sum}')
  repl.open()
  vim.cmd.wincmd('p')
  dap.run(dap.configurations.go[1])
  h.wait(h.FIRST_HIT_MS, 'a line of the logpoint', function()
    return vim.iter(repl_lines()):any(function(text)
      return text:find('sum is %-?%d+.*cart%.go:' .. log_line .. '$')
    end)
  end)
  h.equal(#stops, 0, 'a logpoint opens no timeline')
end)

h.test('the hits are in the quickfix list', function()
  h.wait(h.ANSWER_MS, 'hits', function()
    return #riptrace.hits() > 0
  end)
  vim.cmd('RipTraceHits')
  local first = vim.fn.getqflist()[1]
  h.equal(first.lnum, log_line)
  h.equal(vim.fs.normalize(vim.api.nvim_buf_get_name(first.bufnr)), vim.fs.normalize(log_file))
  h.match(first.text, 'sum is %-?%d+')
  vim.cmd('cclose')
end)

h.test('the variables of a hit are shown in a window', function()
  local function float()
    return vim.iter(vim.api.nvim_list_wins()):find(function(each)
      return vim.api.nvim_win_get_config(each).relative ~= ''
    end)
  end
  vim.cmd('RipTraceHit')
  h.wait(h.ANSWER_MS, 'a window with the hit', float)
  local text = table.concat(vim.api.nvim_buf_get_lines(vim.api.nvim_win_get_buf(float()), 0, -1, false), '\n')
  h.match(text, 'sum int64 = %-?%d+')
  vim.api.nvim_win_close(float(), true)
end)

h.test('a breakpoint opens the timeline at its first hit', function()
  vim.cmd.edit(file)
  vim.api.nvim_win_set_cursor(0, { line, 0 })
  hit_after('the first stop', function()
    dap.toggle_breakpoint()
  end, h.FIRST_HIT_MS)
  h.equal(stops[1].reason, 'breakpoint')
  local frame = dap.session().current_frame
  h.equal(frame.line, line)
  h.wait(h.ANSWER_MS, 'the variable quantity with a number', function()
    return vim.iter(frame.scopes):any(function(scope)
      return vim.iter(scope.variables or {}):any(function(variable)
        return variable.name == 'quantity' and variable.value:find('^%d+$')
      end)
    end)
  end)
end)

h.test('the timeline has the hits of the session, and Enter opens one in the debugger', function()
  vim.cmd('RipTraceTimeline')
  local function shown()
    return table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), '\n')
  end
  h.wait(h.ANSWER_MS, 'a lane and hits', function()
    return shown():find('\ncart +.*[▁▂▃▄▅▆▇█]') and shown():find('quantity=%d') and shown():find('\n▶ #%d')
  end)
  vim.cmd('RipTraceFilter service=cart = quantity > 3')
  h.wait(h.ANSWER_MS, 'hits that match', function()
    return shown():find('\nHits %d') and not shown():find('sum is') and not shown():find('quantity=[123] ')
  end)
  vim.cmd('normal! G')
  local wanted = assert(tonumber(vim.api.nvim_get_current_line():match('#(%d+)')))
  h.equal(
    hit_after('the hit of that line', function()
      vim.api.nvim_feedkeys(vim.keycode('<CR>'), 'mx', false)
    end),
    wanted
  )
  vim.cmd('bwipeout! ' .. vim.fn.bufnr('riptrace://timeline'))
end)

h.test('the fleet buffer shows the breakpoints of the session as armed', function()
  vim.cmd('RipTraceFleet')
  h.wait(h.FIRST_HIT_MS, 'armed tracepoints', function()
    local text = table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), '\n')
    return text:find('Tracepoints  2') and text:find('armed by %a+, [%d,]+ hits')
  end)
  vim.cmd('bwipeout! ' .. vim.fn.bufnr('riptrace://fleet'))
end)

h.test('no breakpoint is rejected', function()
  h.wait(h.FIRST_HIT_MS, 'both breakpoints are taken', function()
    dap.list_breakpoints(false)
    local items = vim.fn.getqflist()
    return #items == 2 and not vim.iter(items):any(function(item)
      return item.text:find('Rejected')
    end)
  end)
end)

h.test('continue and reverse continue walk over the hits', function()
  local here_now = tonumber(stops[#stops].description:match('^Hit (%d+)'))
  local next_hit = hit_after('the next hit', dap.continue)
  assert(next_hit > here_now, ('after hit %d came hit %d'):format(here_now, next_hit))
  h.equal(hit_after('the hit before', dap.reverse_continue), here_now)
end)

h.test('step over and step back walk over the hits of the goroutine', function()
  local here_now = tonumber(stops[#stops].description:match('^Hit (%d+)'))
  local next_hit = here_now
  -- A goroutine that has no later hit yet shows the same one again.
  local deadline = vim.uv.now() + h.FIRST_HIT_MS
  while next_hit == here_now and vim.uv.now() < deadline do
    next_hit = hit_after('the next hit of the goroutine', dap.step_over)
  end
  assert(next_hit > here_now, ('after hit %d came hit %d'):format(here_now, next_hit))
  h.equal(hit_after('the hit before', dap.step_back), here_now)
end)

h.test('health is content with nvim-dap', function()
  vim.cmd('checkhealth riptrace')
  local report = table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), '\n')
  h.match(report, 'OK.-nvim%-dap has the adapter')
  vim.cmd('bwipeout!')
end)

h.test('terminate ends the session', function()
  dap.terminate()
  h.wait(h.ANSWER_MS, 'the end of the session', function()
    return dap.session() == nil
  end)
  h.equal(riptrace.status(), '')
end)

h.finish()
