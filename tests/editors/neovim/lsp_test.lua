--- The language server with Neovim's own client, :checkhealth and :RipTraceFleet, against a running fleet. No nvim-dap.
local here = vim.fs.dirname(vim.fs.abspath(debug.getinfo(1, 'S').source:sub(2)))
package.path = here .. '/?.lua;' .. package.path
local h = require('harness')

local binary = h.required('RIPTRACE_BIN')
local nats = h.required('RIPTRACE_NATS')
local file, line = h.location('RIPTRACE_BP', 'cart/cart.go', 'BP cart-add')

vim.cmd.cd(h.required('RIPTRACE_SHOP'))
require('riptrace').setup({ path = binary, nats = nats })

local function client()
  return vim.lsp.get_clients({ name = 'riptrace' })[1]
end

--- The report of :checkhealth riptrace.
local function health()
  vim.cmd('checkhealth riptrace')
  local text = table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), '\n')
  vim.cmd('bwipeout!')
  return text
end

h.test('opening a Go file starts the server', function()
  vim.cmd.edit(file)
  h.equal(vim.bo.filetype, 'go')
  h.wait(h.ANSWER_MS, 'the server is attached', function()
    return client() and client().initialized and client().attached_buffers[vim.api.nvim_get_current_buf()]
  end)
  h.equal(client().server_capabilities.codeLensProvider ~= nil, true, 'code lenses')
  h.equal(client().server_capabilities.inlayHintProvider ~= nil, true, 'inlay hints')
end)

--- `riptrace trace` beside the editor: the tracepoint whose hits the server shows.
local tracer

h.test('hit counts and values are shown on a traced line', function()
  local output = {}
  local function keep(_, data)
    table.insert(output, data or '')
  end
  local ended
  -- A fleet that has just been started does not know its processes yet: --wait.
  local command = { binary, 'trace', ('%s:%d'):format(file, line), '--nats', nats, '--wait', '--json' }
  tracer = vim.system(command, { stdout = keep, stderr = keep }, function(result)
    ended = result
  end)
  h.wait(h.FIRST_HIT_MS, 'a first hit of riptrace trace', function()
    return ended or table.concat(output):find('"type":"hit"', 1, true)
  end)
  assert(not ended, 'riptrace trace ended: ' .. table.concat(output))
  local buffer = vim.api.nvim_get_current_buf()
  h.wait(h.FIRST_HIT_MS, 'a code lens with hits', function()
    return vim.iter(vim.lsp.codelens.get(buffer)):any(function(lens)
      return lens.range.start.line == line - 1 and lens.command and lens.command.title:find('hit')
    end)
  end)
  h.wait(h.FIRST_HIT_MS, 'an inlay hint with a value', function()
    return vim.iter(vim.lsp.inlay_hint.get({ bufnr = buffer })):any(function(entry)
      local label = entry.inlay_hint.label
      local text = type(label) == 'string' and label
        or vim.iter(label):fold('', function(all, part)
          return all .. part.value
        end)
      return entry.inlay_hint.position.line == line - 1 and text:find('=')
    end)
  end)
end)

h.test('the end of the tracepoint does not end the server', function()
  tracer:kill('sigterm')
  tracer:wait(h.ANSWER_MS)
  h.equal(client().is_stopped(client()), false)
end)

--- What stands behind the lines because it was asked for.
local function readable()
  return vim
    .iter(vim.lsp.inlay_hint.get({ bufnr = vim.api.nvim_get_current_buf() }))
    :map(function(entry)
      return entry.inlay_hint.label
    end)
    :filter(function(label)
      return type(label) == 'string' and vim.startswith(label, '○')
    end)
    :totable()
end

h.test(':RipTraceReadable shows what can be read around the cursor, and hides it again', function()
  h.equal(readable(), {})
  vim.api.nvim_win_set_cursor(0, { line, 0 })
  vim.cmd('RipTraceReadable')
  h.wait(h.ANSWER_MS, 'the variables that can be read on a line', function()
    return vim.iter(readable()):any(function(label)
      return label:find('cart: ') and label:find('quantity')
    end)
  end)
  vim.cmd('RipTraceReadable')
  h.wait(h.ANSWER_MS, 'that nothing is shown any more', function()
    return #readable() == 0
  end)
end)

h.test('health finds binary, editor and server, and says that nvim-dap is missing', function()
  local report = health()
  h.match(report, 'OK.-riptrace %d+%.%d+')
  h.match(report, 'OK.-Neovim 0%.11')
  h.match(report, 'WARNING.-nvim%-dap is not installed')
  h.match(report, 'OK.-running for 1 buffer')
  h.match(report, 'OK.-bus: ')
end)

h.test('a fleet that is not there is an error in health', function()
  require('riptrace').setup({ path = binary, nats = 'nats://127.0.0.1:1', lsp = { enable = false } })
  local report = health()
  require('riptrace').setup({ path = binary, nats = nats })
  h.match(report, 'ERROR.-bus: .-127%.0%.0%.1:1')
end)

h.test(':RipTraceFleet shows the processes', function()
  vim.cmd('RipTraceFleet')
  h.equal(vim.bo.filetype, 'riptrace-fleet')
  h.wait(h.ANSWER_MS, 'the process of cart', function()
    return table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), '\n'):find('cart')
  end)
  vim.cmd('bwipeout')
end)

h.test(':RipTraceRestart starts another server for the same buffer', function()
  vim.cmd.edit(file)
  local before = client().id
  vim.cmd('RipTraceRestart')
  h.wait(h.ANSWER_MS, 'a new server', function()
    return client() and client().id ~= before and client().initialized
  end)
end)

h.finish()
