--- The plugin's own views against a running fleet, without nvim-dap: a trace, its hits, the Timeline and the Fleet buffer.
local here = vim.fs.dirname(vim.fs.abspath(debug.getinfo(1, 'S').source:sub(2)))
package.path = here .. '/?.lua;' .. package.path
local h = require('harness')
local riptrace = require('riptrace')

local binary = h.required('RIPTRACE_BIN')
local nats = h.required('RIPTRACE_NATS')
local file, line = h.location('RIPTRACE_BP', 'cart/cart.go', 'BP cart-add')

-- The screen of the pictures.
vim.o.termguicolors, vim.o.number, vim.o.showmode = true, true, false
vim.cmd('syntax on')

vim.cmd.cd(h.required('RIPTRACE_SHOP'))
riptrace.setup({ path = binary, nats = nats, lsp = { enable = false } })

---@return string[]
local function lines()
  return vim.api.nvim_buf_get_lines(0, 0, -1, false)
end

local function text()
  return table.concat(lines(), '\n')
end

--- Presses keys in the buffer that is shown, with what they are mapped to.
local function press(keys)
  vim.api.nvim_feedkeys(vim.keycode(keys), 'mx', false)
end

--- Puts the cursor on the first line that matches.
local function go_to(pattern)
  for row, each in ipairs(lines()) do
    if each:find(pattern) then
      vim.api.nvim_win_set_cursor(0, { row, 0 })
      return each
    end
  end
  error(('no line matches %s in\n%s'):format(pattern, text()))
end

h.test('without a session the timeline says what to do', function()
  vim.cmd('RipTraceTimeline')
  h.match(h.notified[1].message, 'no session is running.*:RipTrace')
end)

h.test(':RipTraceFleet shows hosts, processes and builds', function()
  vim.cmd('RipTraceFleet')
  h.equal(vim.bo.filetype, 'riptrace-fleet')
  h.wait(h.ANSWER_MS, 'the hosts', function()
    return text():find('Hosts  %d')
  end)
  h.match(text(), 'cart')
  h.match(text(), 'clock ±')
  h.match(text(), 'Builds  %d')
end)

h.test('the fleet buffer yields the selector of a process', function()
  go_to('^      cart ')
  press('y')
  h.match(vim.fn.getreg('"'), '^host=[%w-]+,pid=%d+$')
  press('q')
  h.equal(vim.fn.bufnr('riptrace://fleet'), -1)
end)

h.test(':RipTrace traces the line of the cursor', function()
  vim.cmd.edit(file)
  vim.api.nvim_win_set_cursor(0, { line, 0 })
  -- A fleet that has just been started does not know its processes yet: --wait.
  vim.cmd(('RipTrace %s:%d --wait'):format(file, line))
  h.wait(h.FIRST_HIT_MS, 'hits', function()
    return #riptrace.hits() >= 3
  end)
  local hit = riptrace.hits()[1]
  h.equal(hit.line, line)
  h.equal(hit.file, vim.fs.normalize(file))
  h.match(riptrace.status(), '^%d+ hits')
end)

h.test('the line has a sign and what its newest hit said', function()
  local namespace = vim.api.nvim_get_namespaces()['riptrace.marks']
  local mark
  h.wait(h.ANSWER_MS, 'a mark on the line', function()
    mark = vim.api.nvim_buf_get_extmarks(0, namespace, { line - 1, 0 }, { line - 1, -1 }, { details = true })[1]
    return mark
  end)
  h.match(mark[4].sign_text, '»')
  -- As many of its variables as there is room for, of which the first always has.
  h.match(mark[4].virt_text[1][1], '%d+ hits?: c=%*cart%.Cart {')
end)

h.test('the variables of a hit of a trace are shown in a window', function()
  vim.cmd('RipTraceHit')
  local window
  h.wait(h.ANSWER_MS, 'a window', function()
    window = vim.iter(vim.api.nvim_list_wins()):find(function(each)
      return vim.api.nvim_win_get_config(each).relative ~= ''
    end)
    return window
  end)
  h.match(
    table.concat(vim.api.nvim_buf_get_lines(vim.api.nvim_win_get_buf(window), 0, -1, false), '\n'),
    'quantity int = %d+'
  )
  vim.api.nvim_win_close(window, true)
end)

h.test(':RipTraceTimeline has a lane for the service and a line for each hit', function()
  vim.cmd('RipTraceTimeline')
  h.equal(vim.bo.filetype, 'riptrace-timeline')
  h.wait(h.ANSWER_MS, 'a lane with bars', function()
    return text():find('\ncart%s+.*[▁▂▃▄▅▆▇█]')
  end)
  h.match(text(), '│%+')
  h.match(text(), '#%d+%s+%d%d:%d%d:%d%d%.%d+ ±')
  h.match(text(), 'following')
  h.wait(h.FIRST_HIT_MS, 'a screen of hits', function()
    return text():find('\nHits 1 to %d%d')
  end)
  h.picture('neovim-timeline')
end)

h.test('Enter on a lane lists its hits from there, and the view stays', function()
  go_to('^cart ')
  press('30|<CR>')
  h.wait(h.ANSWER_MS, 'the list of that place', function()
    return not lines()[1]:find('following') and text():find('\nHits %d+ to %d+')
  end)
end)

h.test('a filter by text leaves only hits that match', function()
  vim.cmd('RipTraceFilter nothing says this')
  h.wait(h.ANSWER_MS, 'an empty list', function()
    return text():find('\nNo hits')
  end)
  h.match(lines()[1], 'filter: nothing says this')
  vim.cmd('RipTraceFilter service=cart quantity')
  h.wait(h.ANSWER_MS, 'hits', function()
    return text():find('\nHits %d')
  end)
  vim.cmd('RipTraceFilter')
  vim.cmd('RipTraceFilter goroutine=main')
  h.match(h.notified[#h.notified].message, "'main' is not the number")
end)

h.test('zooming in and out keeps the timeline, and q closes it', function()
  press('+++')
  h.wait(h.ANSWER_MS, 'the axis', function()
    return text():find('│%+')
  end)
  press('A')
  press('q')
  h.equal(vim.fn.bufnr('riptrace://timeline'), -1)
end)

h.test('the tracepoint is in the fleet buffer with its mechanism, and leads to its source', function()
  vim.cmd('RipTraceFleet')
  h.wait(h.FIRST_HIT_MS, 'an armed tracepoint', function()
    return text():find('armed in %d+ of %d+') and text():find('armed by %a+, [1-9]')
  end)
  h.picture('neovim-fleet')
  go_to('armed in %d+')
  press('<CR>')
  h.equal(vim.fs.normalize(vim.api.nvim_buf_get_name(0)), vim.fs.normalize(file))
  h.equal(vim.api.nvim_win_get_cursor(0)[1], line)
  vim.cmd('bwipeout! ' .. vim.fn.bufnr('riptrace://fleet'))
end)

h.test(':RipTraceStop ends the trace, and its tracepoint leaves the fleet', function()
  vim.cmd('RipTraceStop')
  h.equal(riptrace.status(), '')
  vim.cmd('RipTraceFleet')
  h.wait(h.FIRST_HIT_MS, 'no tracepoint', function()
    press('r')
    return text():find('Tracepoints  none')
  end)
  press('q')
  vim.cmd('RipTraceStop')
  h.match(h.notified[#h.notified].message, 'nothing is traced')
end)

h.test('a fleet that is not there is said to be so in the buffer', function()
  riptrace.setup({ path = binary, nats = 'nats://127.0.0.1:1', lsp = { enable = false } })
  vim.cmd('RipTraceFleet')
  h.wait(h.ANSWER_MS, 'the reason', function()
    return text():find('The fleet cannot be shown') and text():find('127%.0%.0%.1:1')
  end)
  press('q')
end)

h.test('a trace that cannot begin says why', function()
  vim.cmd('RipTrace nowhere.go:1')
  h.wait(h.ANSWER_MS, 'a message', function()
    return vim.iter(h.notified):any(function(each)
      return each.message:find('127%.0%.0%.1:1')
    end)
  end)
end)

h.finish()
