--- The parts of the plugin that need neither a fleet nor nvim-dap: options, binary search, hits, commands, help.
local here = vim.fs.dirname(vim.fs.abspath(debug.getinfo(1, 'S').source:sub(2)))
package.path = here .. '/?.lua;' .. package.path
local h = require('harness')
local config = require('riptrace.config')
local hits = require('riptrace.hits')
local util = require('riptrace.util')

--- A directory with an executable `riptrace` at each of these paths.
local function machine(files)
  local root = vim.fn.tempname()
  for _, file in ipairs(files) do
    vim.fn.mkdir(vim.fs.dirname(root .. '/' .. file), 'p')
    vim.fn.writefile({ '#!/bin/sh' }, root .. '/' .. file)
    vim.fn.setfperm(root .. '/' .. file, 'rwxr-xr-x')
  end
  return root
end

--- Runs with other environment variables and puts the old ones back.
local function with_environment(values, run)
  local old = {}
  for name, value in pairs(values) do
    old[name] = vim.env[name]
    vim.env[name] = value
  end
  local passed, problem = xpcall(run, debug.traceback)
  for name in pairs(values) do
    vim.env[name] = old[name]
  end
  if not passed then
    error(problem, 0)
  end
end

h.test('options are merged over the defaults, deeply', function()
  local merged = assert(config.merge({ nats = 'nats://a:4222', dap = { rate = 5 } }))
  h.equal(merged.nats, 'nats://a:4222')
  h.equal(merged.dap.rate, 5)
  h.equal(merged.dap.stop_on_hit, true)
  h.equal(merged.filetypes, { 'go', 'rust', 'c', 'cpp' })
  h.equal(config.defaults.nats, nil, 'the defaults stay')
end)

for name, case in pairs({
  ['an unknown option'] = { { nat = 'x' }, "'nat' is not an option.*nats" },
  ['an unknown nested option'] = { { dap = { stop = true } }, "'dap%.stop' is not an option.*stop_on_hit" },
  ['a wrong type'] = { { lsp = { enable = 'yes' } }, "'lsp%.enable' must be a boolean, not \"yes\"" },
  ['a wrong rate'] = { { dap = { rate = 0 } }, "'dap%.rate' must be a whole number" },
  ['a value for a table'] = { { hits = 5 }, "'hits' must be a table, not 5" },
  ['too many hits'] = { { hits = { keep_max = 1e9 } }, "'hits%.keep_max' must be a whole number from 1 to 100000" },
  ['filetypes that are no list'] = { { filetypes = { go = true } }, "'filetypes' must be a list" },
  ['no table'] = { 'nats://a', 'setup%(%) takes a table' },
}) do
  h.test(name .. ' is named', function()
    local merged, problem = config.merge(case[1])
    h.equal(merged, nil)
    h.match(problem, case[2])
  end)
end

h.test('setup() with a wrong option tells and changes nothing', function()
  local before = require('riptrace').config()
  require('riptrace').setup({ natz = 'x' })
  h.equal(require('riptrace').config(), before)
  h.equal(require('riptrace').is_set_up(), false)
  h.match(h.notified[1].message, "'natz' is not an option.*:help riptrace%-options")
end)

h.test('the binary is searched in the documented order', function()
  local root = machine({ 'path/riptrace', 'code/target/release/riptrace', '.cargo/bin/riptrace', '.local/bin/riptrace' })
  with_environment({ HOME = root, PATH = root .. '/path:relative' }, function()
    for _, file in ipairs({ 'path', 'code/target/release', '.cargo/bin', '.local/bin' }) do
      h.equal(util.find_binary(config.defaults, root .. '/code'), root .. '/' .. file .. '/riptrace')
      vim.fn.delete(root .. '/' .. file .. '/riptrace')
    end
    local binary, problem = util.find_binary(config.defaults, root .. '/code')
    h.equal(binary, nil)
    for _, part in ipairs({ '$PATH', 'target/release', '~/.cargo/bin', '~/.local/bin', 'cargo build --release' }) do
      h.match(problem, vim.pesc(part))
    end
  end)
end)

h.test('a path that was set is the only one tried', function()
  local root = machine({ 'path/riptrace' })
  with_environment({ PATH = root .. '/path' }, function()
    local binary, problem = util.find_binary({ path = root .. '/nowhere' })
    h.equal(binary, nil)
    h.match(problem, 'option path.*nowhere')
    h.equal(util.find_binary({ path = root .. '/path/riptrace' }), root .. '/path/riptrace')
  end)
end)

h.test('the fleet is named by flags only where it was set', function()
  h.equal(util.fleet_flags(config.defaults), {})
  h.equal(
    util.fleet_flags({ nats = 'nats://a', creds = '/c/d.creds' }),
    { '--nats', 'nats://a', '--creds', '/c/d.creds' }
  )
end)

local function hit(seq, given)
  return vim.tbl_extend('force', {
    seq = seq,
    time = '2026-11-23T10:00:00.000Z',
    uncertainty_ns = 41000,
    host = 'web-1',
    pid = 812,
    service = 'cart',
    goroutine = 34,
    ['function'] = 'cart.(*Cart).Add',
    file = '/code/cart.go',
    line = 42,
    message = 'qty=3\n',
  }, given or {})
end

h.test('the newest hits are kept, and the others counted', function()
  local store = hits.new(3)
  for seq = 1, 5 do
    store:add(hit(seq))
  end
  local seqs = vim.tbl_map(function(each)
    return each.seq
  end, store:list())
  h.equal(seqs, { 3, 4, 5 })
  h.equal(store:forgotten(), 2)
  h.equal(store:find().seq, 5)
  h.equal(store:find(3).seq, 3)
  h.equal(store:find(2), nil)
  store:clear()
  h.equal(store:list(), {})
  h.equal(store:find(), nil)
  h.equal(store:forgotten(), 0)
end)

h.test('null in an event is nothing, and what is no hit is not taken', function()
  local parsed = assert(hits.parse(hit(1, { file = vim.NIL, goroutine = vim.NIL })))
  h.equal(parsed.file, nil)
  h.equal(parsed.goroutine, nil)
  for _, body in ipairs({ 'text', {}, hit('1'), hit(1, { message = vim.NIL }) }) do
    h.equal(hits.parse(body), nil)
  end
end)

h.test('a hit in the quickfix list says when, where and what', function()
  local items = hits.quickfix_items({ hit(12), hit(13, { file = vim.NIL, goroutine = nil }) })
  h.equal(items[1], {
    filename = '/code/cart.go',
    lnum = 42,
    text = '#12 2026-11-23T10:00:00.000Z web-1 cart 812 g34: qty=3',
    valid = 1,
  })
  local without_file = hits.quickfix_items({ assert(hits.parse(hit(13, { file = vim.NIL }))) })
  h.equal(without_file[1].filename, nil)
  h.equal(without_file[1].valid, 0)
end)

h.test('the package has the help, the licences, and every file of the plugin', function()
  vim.cmd('help riptrace')
  h.equal(vim.fs.normalize(vim.api.nvim_buf_get_name(0)), vim.fs.normalize(h.plugin .. '/doc/riptrace.txt'))
  vim.cmd('helpclose')
  for _, file in ipairs({ 'LICENSE-MIT', 'LICENSE-APACHE', 'README.md' }) do
    assert(vim.uv.fs_stat(h.plugin .. '/' .. file), file .. ' is not in the package')
  end
  local source = h.repo .. '/editors/neovim/lua/riptrace'
  for name in vim.fs.dir(source) do
    h.equal(vim.fn.readblob(h.plugin .. '/lua/riptrace/' .. name), vim.fn.readblob(source .. '/' .. name), name)
  end
end)

h.test('every command and option of the plugin has a help tag', function()
  local tags = table.concat(vim.fn.readfile(h.plugin .. '/doc/tags'), '\n')
  local wanted = { 'riptrace', 'riptrace.setup()', 'riptrace-health', 'riptrace.hits()', 'riptrace.status()' }
  for name in pairs(vim.api.nvim_get_commands({})) do
    if vim.startswith(name, 'RipTrace') then
      table.insert(wanted, ':' .. name)
    end
  end
  local function options(shape, prefix)
    for key, value in pairs(shape) do
      if type(value) == 'table' and not vim.islist(value) then
        options(value, prefix .. key .. '.')
      else
        table.insert(wanted, prefix .. key)
      end
    end
  end
  options(config.defaults, 'riptrace.')
  for _, key in ipairs({ 'path', 'nats', 'creds', 'dap.selector', 'dap.rate' }) do
    table.insert(wanted, 'riptrace.' .. key)
  end
  assert(#wanted >= 20, 'commands and options were not found: ' .. vim.inspect(wanted))
  for _, tag in ipairs(wanted) do
    assert(('\n' .. tags):find('\n' .. tag .. '\t', 1, true), tag .. ' has no tag in doc/riptrace.txt')
  end
end)

h.test('every parameter has a type, and every type of the plugin is declared', function()
  local functions, declared, used, missing = 0, {}, {}, {}
  for name in vim.fs.dir(h.plugin .. '/lua/riptrace') do
    local comment = {}
    for number, text in ipairs(vim.fn.readfile(h.plugin .. '/lua/riptrace/' .. name)) do
      local parameters = text:match('^function [%w_.:]+%((.-)%)')
      if parameters then
        functions = functions + 1
        for parameter in parameters:gmatch('[%w_]+') do
          local pattern = '^%-%-%-@param ' .. parameter .. '%??%s+%S'
          local typed = vim.iter(comment):any(function(each)
            return each:find(pattern) ~= nil
          end)
          if not typed and parameter:sub(1, 1) ~= '_' then
            table.insert(missing, ('%s:%d: %s'):format(name, number, parameter))
          end
        end
      end
      if text:find('^%-%-%-') then
        table.insert(comment, text)
      else
        comment = {}
      end
      local told = text:match('^%s*%-%-%-@(.*)') or text:match('%-%-%[%[@as (.-)%]%]')
      if told then
        local own = told:match('^class %(exact%) (riptrace[%w_.]*)') or told:match('^%a+ (riptrace[%w_.]*)')
        if own and (told:find('^class ') or told:find('^alias ') or told:find('^enum ')) then
          declared[own] = true
        end
        for type in told:gmatch('riptrace%.%u[%w_]*') do
          used[type] = ('%s:%d'):format(name, number)
        end
      end
    end
  end
  for type, place in pairs(used) do
    if not declared[type] then
      table.insert(missing, ('%s: nothing declares %s'):format(place, type))
    end
  end
  h.equal(missing, {})
  assert(functions > 90 and vim.tbl_count(used) > 5, ('%d functions, %d types'):format(functions, vim.tbl_count(used)))
end)

h.test('the language server is for sources, riptrace.toml and scenarios, not for other TOML files', function()
  local serves = require('riptrace.lsp').serves
  local names = {
    ['riptrace.toml'] = true,
    ['scenario.toml'] = true,
    ['paid.scenario.toml'] = true,
    ['myscenario.toml'] = false,
    ['Cargo.toml'] = false,
    ['cart.go'] = true,
    ['a.py'] = false,
  }
  for name, expected in pairs(names) do
    local buffer = vim.api.nvim_create_buf(true, false)
    vim.api.nvim_buf_set_name(buffer, vim.fn.tempname() .. '/' .. name)
    vim.bo[buffer].filetype = vim.filetype.match({ buf = buffer })
    h.equal(serves(config.defaults, buffer), expected, name)
    vim.api.nvim_buf_delete(buffer, { force = true })
  end
end)

h.test('without a session the commands say what to do', function()
  vim.cmd('RipTraceHits')
  h.match(h.notified[1].message, 'no hits yet.*:help riptrace%-debug')
  vim.cmd('RipTraceHit seven')
  h.match(h.notified[2].message, "'seven' is not the number of a hit")
  vim.cmd('RipTraceHit 7')
  h.match(h.notified[3].message, 'hit 7 is not among those kept')
  h.equal(require('riptrace').status(), '')
end)

h.finish()
