--- What the plugin registers with nvim-dap, against a stand-in for its module: runs where nvim-dap is not.
local here = vim.fs.dirname(vim.fs.abspath(debug.getinfo(1, 'S').source:sub(2)))
package.path = here .. '/?.lua;' .. package.path
local h = require('harness')

--- Tables that make their entries when asked, as nvim-dap's listeners and defaults do.
local function lazy_tables()
  return setmetatable({}, {
    __index = function(self, key)
      self[key] = {}
      return rawget(self, key)
    end,
  })
end

local printed = {}
local dap = {
  adapters = {},
  configurations = { go = { { type = 'go', request = 'launch', name = 'mine' } } },
  defaults = lazy_tables(),
  listeners = { after = lazy_tables(), before = lazy_tables() },
}
package.loaded['dap'] = dap
local repl = vim.api.nvim_create_buf(true, true)
vim.bo[repl].filetype = 'dap-repl'
package.loaded['dap.repl'] = {
  -- As nvim-dap: goes on in the last line, and gives the number of the line that it began on.
  append = function(text, at, options)
    h.equal({ at, options }, { '$', { newline = false } })
    table.insert(printed, text)
    local number = vim.api.nvim_buf_line_count(repl)
    local last = vim.api.nvim_buf_get_lines(repl, number - 1, number, true)[1]
    vim.api.nvim_buf_set_text(repl, number - 1, #last, number - 1, #last, vim.split(text, '\n'))
    return number
  end,
}

-- Only its path matters here: any program that is there.
local binary = vim.fs.normalize(vim.v.progpath)
local riptrace = require('riptrace')
riptrace.setup({
  path = binary,
  nats = 'nats://10.0.0.5:4222',
  filetypes = { 'go', 'c' },
  dap = { selector = 'service=cart', rate = 'none', stop_on_hit = false },
  lsp = { enable = false },
  hits = { keep_max = 2 },
})

--- A session that answers `variables` from a table of references, and other requests from a table of answers.
local function session(references, answers)
  return {
    config = { type = 'riptrace' },
    on_close = {},
    request = function(_, command, arguments, callback)
      if answers and answers[command] then
        return callback(answers[command](arguments))
      end
      h.equal(command, 'variables')
      local variables = references[arguments.variablesReference]
      if not variables then
        callback({ message = 'no such reference' })
      else
        callback(nil, { variables = variables })
      end
    end,
  }
end

local function hit(seq)
  return {
    seq = seq,
    time = 'T',
    uncertainty_ns = 1,
    host = 'web-1',
    pid = 812,
    service = 'cart',
    goroutine = 34,
    ['function'] = 'cart.(*Cart).Add',
    file = h.repo .. '/README.md',
    line = 1,
    message = 'qty=' .. seq,
  }
end

local function receive(from, event, body)
  if event == 'output' then
    dap.defaults.riptrace.on_output(from, body)
  else
    dap.listeners.after['event_' .. event].riptrace(from, body)
  end
end

h.test('the adapter is the binary with dap', function()
  local resolved
  dap.adapters.riptrace(function(adapter)
    resolved = adapter
  end, { cwd = '/' })
  h.equal(resolved.type, 'executable')
  h.equal(resolved.command, binary)
  h.equal(resolved.args, { 'dap' })
  h.equal(resolved.options.cwd, '/')
end)

h.test('each filetype gets the configuration beside what it has', function()
  h.equal(dap.configurations.go[1].name, 'mine')
  for _, configuration in ipairs({ dap.configurations.go[2], dap.configurations.c[1] }) do
    h.equal(configuration, {
      type = 'riptrace',
      request = 'attach',
      name = 'RipTrace: attach to the fleet',
      cwd = '${workspaceFolder}',
      nats = 'nats://10.0.0.5:4222',
      selector = 'service=cart',
      stopOnHit = false,
      rate = 'none',
    })
  end
end)

h.test('a second setup() replaces the configuration', function()
  riptrace.setup({ path = binary, filetypes = { 'go', 'c' }, lsp = { enable = false }, hits = { keep_max = 2 } })
  h.equal(#dap.configurations.go, 2)
  h.equal(dap.configurations.go[2].nats, nil)
  h.equal(dap.configurations.go[2].stopOnHit, true)
end)

h.test('a hit is one line with its place, without colours', function()
  printed = {}
  local source = { path = vim.uv.cwd() .. '/cart/cart.go' }
  receive(session({}), 'output', { output = '\27[33mweb-1 qty=3\27[0m\n', source = source, line = 42 })
  receive(session({}), 'output', { output = 'no place' })
  receive(session({}), 'output', { output = 'secret\n', category = 'telemetry' })
  h.equal(printed, { 'web-1 qty=3  cart/cart.go:42\n', 'no place\n' })
end)

h.test('hits are gathered from their events, and listed in quickfix', function()
  local from = session({})
  receive(from, 'initialized', {})
  for seq = 1, 3 do
    receive(from, 'riptrace/hit', hit(seq))
  end
  receive(from, 'riptrace/hit', { nonsense = true })
  h.equal(#riptrace.hits(), 2)
  vim.cmd('RipTraceHits')
  local list = vim.fn.getqflist({ title = 0, items = 0 })
  h.equal(list.title, 'RipTrace: 2 hits, 1 older ones not kept')
  h.equal(#list.items, 2)
  h.equal(list.items[2].text, '#3 T web-1 cart 812 g34: qty=3')
  h.equal(list.items[2].lnum, 1)
  vim.cmd('cclose')
end)

h.test('the variables of a hit are shown, one level deep', function()
  local from = session({
    [7] = { { name = 'hit 1', value = '', variablesReference = 8 } },
    [8] = {
      { name = 'c', type = '*cart.Cart', value = '{...}', variablesReference = 9 },
      { name = 'quantity', type = 'int', value = '3', variablesReference = 0 },
    },
    [9] = { { name = 'Customer', type = 'string', value = '"ada\n"', variablesReference = 0 } },
  })
  receive(from, 'initialized', {})
  receive(from, 'output', { output = 'x\n', variablesReference = 7 })
  receive(from, 'riptrace/hit', hit(1))
  receive(from, 'output', { output = 'no variables\n' })
  receive(from, 'riptrace/hit', hit(2))
  local before = #vim.api.nvim_list_wins()
  vim.cmd('RipTraceHit 1')
  h.wait(h.ANSWER_MS, 'a window with the hit', function()
    return #vim.api.nvim_list_wins() > before
  end)
  local window = vim.iter(vim.api.nvim_list_wins()):find(function(each)
    return vim.api.nvim_win_get_config(each).relative ~= ''
  end)
  local lines = vim.api.nvim_buf_get_lines(vim.api.nvim_win_get_buf(window), 0, -1, false)
  h.equal(vim.list_slice(lines, 3), {
    'c *cart.Cart = {...}',
    '  Customer string = "ada\\n"',
    'quantity int = 3',
  })
  vim.api.nvim_win_close(window, true)
  vim.cmd('RipTraceHit')
  h.wait(h.ANSWER_MS, 'a message', function()
    return #h.notified > 0
  end)
  h.match(h.notified[1].message, 'hit 2 came without variables')
end)

h.test('in the REPL, K on the line of a hit shows its variables, and hides them again', function()
  local from = session({
    [7] = { { name = 'hit 1', value = '', variablesReference = 8 } },
    [8] = { { name = 'quantity', type = 'int', value = '3', variablesReference = 0 } },
  })
  receive(from, 'initialized', {})
  receive(from, 'output', { output = 'before\n' })
  receive(from, 'output', { output = 'qty=1\n', variablesReference = 7 })
  receive(from, 'riptrace/hit', hit(1))
  receive(from, 'output', { output = 'after\n' })
  vim.api.nvim_win_set_buf(0, repl)
  local rows = vim.api.nvim_buf_get_lines(repl, 0, -1, false)
  local row = vim.fn.index(rows, 'qty=1')
  local opened = vim.api.nvim_get_namespaces()['riptrace.repl.opened']
  local function shown()
    return vim.api.nvim_buf_get_extmarks(repl, opened, 0, -1, { details = true })
  end
  vim.api.nvim_win_set_cursor(0, { row + 1, 0 })
  vim.api.nvim_feedkeys('K', 'mx', false)
  h.wait(h.ANSWER_MS, 'the variables under the line', function()
    return #shown() == 1
  end)
  h.equal(shown()[1][2], row)
  h.equal(shown()[1][4].virt_lines[1][1][1], '    quantity int = 3')
  vim.api.nvim_feedkeys('K', 'mx', false)
  h.equal(shown(), {})
  -- Another line is no hit.
  vim.api.nvim_win_set_cursor(0, { row, 0 })
  vim.api.nvim_feedkeys('K', 'mx', false)
  h.equal(shown(), {})
  vim.cmd.enew()
end)

h.test('the timeline asks the adapter, follows its events, opens a hit, and ends with the session', function()
  local opened, pages = {}, 0
  local from = session({}, {
    ['riptrace/timelinePage'] = function(arguments)
      pages = pages + 1
      h.equal(vim.json.encode(arguments.filter), '{}')
      local row = vim.tbl_extend('force', hit(5), { at_ns = 0, label = 'qty=5', undetermined_with = { 4 }, late = false })
      return nil, { hits = { row }, oldest = 1, newest = 5, open = vim.NIL, arrived = 5, dropped = 2, evicted = 0 }
    end,
    ['riptrace/timelineOverview'] = function(arguments)
      local counts, first = {}, {}
      for index = 1, arguments.buckets do
        counts[index], first[index] = index == 1 and 5 or 0, index == 1 and 1 or vim.NIL
      end
      local lane = { service = 'cart', hits = 5, counts = counts, first = first, uncertainty_ns = 41000 }
      return nil, { from_ns = 0, to_ns = 1000, buckets = arguments.buckets, services = { lane } }
    end,
    ['riptrace/openHit'] = function(arguments)
      table.insert(opened, arguments.seq)
      return nil, {}
    end,
  })
  receive(from, 'initialized', {})
  vim.cmd('RipTraceTimeline')
  local text = table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), '\n')
  h.match(text, '5 hits, 2 dropped')
  h.match(text, '\ncart +█.* 5 ±41 µs')
  h.match(text, '#5 .*qty=5  ≈ 4$')
  vim.cmd('normal! G')
  vim.api.nvim_feedkeys(vim.keycode('<CR>'), 'mx', false)
  h.equal(opened, { 5 })
  local before = pages
  for _ = 1, 5 do
    receive(from, 'riptrace/timelineChanged', { revision = 1 })
  end
  h.wait(h.ANSWER_MS, 'another look', function()
    return pages > before
  end)
  h.equal(pages, before + 1)
  vim.cmd('RipTraceGoto 4')
  h.equal(opened, { 5, 4 })
  from.on_close.riptrace(from)
  h.match(vim.api.nvim_buf_get_lines(0, 0, 1, false)[1], 'session has ended')
  vim.cmd('bwipeout')
  vim.cmd('RipTraceGoto 4')
  h.match(h.notified[#h.notified].message, 'no session is running')
end)

h.test('the status line counts hits and drops while a session runs', function()
  local from = session({})
  receive(from, 'initialized', {})
  h.equal(riptrace.status(), '')
  receive(from, 'riptrace/statistics', { hits = 1, dropped = 0, hosts = 1, processes = 1 })
  h.equal(riptrace.status(), '1 hit')
  receive(from, 'riptrace/statistics', { hits = 120, dropped = 3, hosts = 1, processes = 1 })
  h.equal(riptrace.status(), '120 hits, 3 dropped')
  from.on_close.riptrace(from)
  h.equal(riptrace.status(), '')
end)

h.test('another debugger of the same nvim-dap clears nothing', function()
  receive(session({}), 'riptrace/hit', hit(9))
  local other = session({})
  other.config.type = 'go'
  receive(other, 'initialized', {})
  h.equal(riptrace.hits()[#riptrace.hits()].seq, 9)
end)

h.test('a missing binary is told, and nothing is started', function()
  riptrace.setup({ path = '/nowhere/riptrace', lsp = { enable = false } })
  local resolved = false
  dap.adapters.riptrace(function()
    resolved = true
  end, {})
  h.equal(resolved, false)
  h.match(h.notified[1].message, '/nowhere/riptrace')
end)

h.finish()
