--- The logic of the views, which needs no fleet: the fleet's lines, the timeline, the hits of a trace as its source.
local here = vim.fs.dirname(vim.fs.abspath(debug.getinfo(1, 'S').source:sub(2)))
package.path = here .. '/?.lua;' .. package.path
local h = require('harness')
local fleet = require('riptrace.fleet')
local hits = require('riptrace.hits')
local marks = require('riptrace.marks')
local text = require('riptrace.text')
local timeline_module = require('riptrace.timeline')
local tracer = require('riptrace.tracer')
local view = require('riptrace.view')

h.test('numbers and times are written for a person', function()
  h.equal(text.number(1234567), '1,234,567')
  h.equal(text.number(-123456), '-123,456')
  h.equal(text.plural(1, 'process', 'processes'), '1 process')
  h.equal(text.duration(41000), '41 µs')
  h.equal(text.duration(1500000), '1.5 ms')
  h.equal(text.duration(100e9), '100 s')
  h.equal(text.duration(7), '7 ns')
  h.equal(text.rate(0), '0/s')
  h.equal(text.rate(0.44), '0.4/s')
  h.equal(text.rate(1200.4), '1,200/s')
  h.equal(text.since_start(1230000000, 10000000), '+1.23 s')
  h.equal(text.since_start(-20000, 1000), '−20 µs')
  h.equal(text.clock_time('2026-11-23T10:00:00.123Z'), '10:00:00.123')
  h.equal(text.column('abc', 5), 'abc  ')
  h.equal(text.column('übergröße', 5), 'über…')
end)

local function answer()
  return {
    builds = { { id = 'go:1', language = 'go', dwarf = true, go_version = 'go1.27.3', module = 'example.com/shop' } },
    hosts = {
      {
        host = 'web-1',
        alive = true,
        kernel = '6.12',
        version = '0.1.0',
        clock_uncertainty_ns = 41000,
        processes = {
          {
            pid = 812,
            service = 'cart',
            exe = '/srv/cart',
            build = 'go:1',
            refused = vim.NIL,
            probes = {
              {
                tracepoint = 't-1',
                state = 'armed',
                mechanism = 'jump',
                sites = { { ['function'] = 'cart.Add', file = '/src/cart/cart.go', line = 42 } },
                reason = vim.NIL,
                hits = 100,
                dropped = 20,
                hits_per_s = 10.0,
              },
            },
          },
          {
            pid = 9,
            service = 'stock',
            exe = '/srv/stock',
            build = 'go:1',
            refused = 'owned by another user',
            probes = {
              { tracepoint = 't-1', state = 'refused', reason = 'no\nsuch line', hits = 0, dropped = 0 },
            },
          },
        },
      },
    },
    tracepoints = { { id = 't-1', location = 'cart/cart.go:42', own = true, path = '/code/cart.go', line = 40 } },
  }
end

--- The texts of lines made of pieces.
local function texts(lines)
  return vim.tbl_map(function(chunks)
    return vim.iter(chunks):fold('', function(all, chunk)
      return all .. chunk[1]
    end)
  end, lines)
end

h.test('a fleet is tracepoints with their probes, hosts with their processes, and builds', function()
  local lines, targets = fleet.lines(assert(fleet.parse(answer())))
  h.equal(texts(lines), {
    'Tracepoints  1',
    '  ● cart/cart.go:42  armed in 1 of 2, 100 hits, 10/s, 20 dropped',
    '      cart on web-1  armed by jump, 100 hits, 10/s, 20 dropped',
    '      stock on web-1  refused, no\\nsuch line',
    '',
    'Hosts  1',
    '  web-1  2 processes, clock ±41 µs, kernel 6.12',
    '      cart  812  /srv/cart  go1.27.3',
    '      stock  9  /srv/stock  cannot be traced: owned by another user',
    '',
    'Builds  1',
    '  example.com/shop  go1.27.3, 2 processes',
    '      go:1',
  })
  h.equal({ targets[2].file, targets[2].line }, { '/code/cart.go', 40 })
  h.equal(targets[3].selector, 'host=web-1,pid=812')
  h.equal(targets[12].selector, 'module=example.com/shop')
end)

h.test('an answer that is no fleet is named with its place', function()
  for _, case in ipairs({
    { 'text', 'fleet must be an object' },
    { vim.tbl_extend('force', answer(), { builds = {} }), 'build go:1 must be an object' },
    { vim.tbl_extend('force', answer(), { hosts = { { alive = true } } }), 'hosts%[1%]%.host must be a text' },
  }) do
    local read, problem = fleet.parse(case[1])
    h.equal(read, nil)
    h.match(problem, case[2])
  end
  local read, problem = fleet.parse_ps('HOST PID\n')
  h.equal(read, nil)
  h.match(problem, 'line 1 must be an object.*HOST PID')
end)

h.test('the lines of ps are the same fleet, and rates come from two looks', function()
  local build = answer().builds[1]
  local function look(count, last, at)
    local lines = {
      { type = 'host', host = 'web-1', alive = true, kernel = '6.12', version = '0.1.0' },
      { type = 'process', host = 'web-1', pid = 812, service = 'cart', exe = '/srv/cart', build = build },
      { type = 'tracepoint', tracepoint = 't-1', location = 'cart/cart.go:42' },
      {
        type = 'status',
        tracepoint = 't-1',
        host = 'web-1',
        pid = 812,
        service = 'cart',
        state = 'armed',
        mechanism = 'trap',
        sites = 1,
        places = {},
        hits = count,
        dropped = 0,
      },
      { type = 'news of a later version' },
    }
    local read = assert(fleet.parse_ps(table.concat(vim.tbl_map(vim.json.encode, lines), '\n')))
    local looks = fleet.add_rates(read, last, at)
    return texts(fleet.lines(read))[2], looks
  end
  local first, looks = look(100, {}, 1000)
  h.equal(first, '  ● cart/cart.go:42  armed in 1 of 1, 100 hits')
  local second, later = look(130, looks, 11000)
  h.equal(second, '  ● cart/cart.go:42  armed in 1 of 1, 130 hits, 3/s')
  -- Armed anew: the counts begin again.
  h.equal(look(5, later, 20000), '  ● cart/cart.go:42  armed in 1 of 1, 5 hits')
end)

h.test('a time is split without losing a nanosecond', function()
  h.equal({ tracer.split_time('1970-01-01T00:00:00Z') }, { 0, 0 })
  h.equal({ tracer.split_time('2026-11-23T10:00:00.000123456Z') }, { 1795428000, 123456 })
  h.equal({ tracer.split_time('2024-02-29T23:59:59.5Z') }, { 1709251199, 500000000 })
end)

--- A store with hits a millisecond apart, of two services in turn.
local function store_of(count)
  local store = hits.new(100000)
  for seq = 1, count do
    store:add({
      seq = seq,
      time = ('2026-11-23T10:00:%02d.%03d000000Z'):format(math.floor(seq / 1000), seq % 1000),
      uncertainty_ns = 1000,
      host = 'web-1',
      pid = 812,
      service = seq % 2 == 0 and 'api' or 'cart',
      goroutine = seq % 10,
      ['function'] = 'cart.Add',
      file = '/code/cart.go',
      line = 42,
      message = 'qty=' .. seq,
    })
  end
  return store
end

--- A timeline over a store; the questions that it asked, in order.
local function timeline_of(count)
  local store = store_of(count)
  local source = tracer.source_of(store)
  local asked, draws = {}, 0
  local timeline = timeline_module.new(function(request, arguments, on_answer)
    table.insert(asked, { request, arguments })
    source.ask(request, arguments, on_answer)
  end, function()
    draws = draws + 1
  end)
  timeline:load()
  return timeline, store, asked, function()
    return draws
  end
end

local function services(timeline)
  return vim.tbl_map(function(lane)
    return { lane.service, lane.hits }
  end, timeline.lanes)
end

h.test('the timeline counts hits by service and lists the newest', function()
  local timeline = timeline_of(1000)
  h.equal(services(timeline), { { 'api', 500 }, { 'cart', 500 } })
  h.equal(#timeline.list, timeline_module.LIST_HITS)
  h.equal(timeline.list[#timeline.list].seq, 1000)
  local shown = texts(timeline:lines())
  h.match(shown[1], '1,000 hits.*following')
  h.match(shown[2], '^api +[▁▂▃▄▅▆▇█ ]+  500 ±1 µs$')
  h.match(shown[#shown], '^  #1000 .*±1 µs +api +web%-1 +g0 +qty=1000$')
end)

h.test('every hit is reached page by page', function()
  local timeline = timeline_of(1000)
  local reached = {}
  for _ = 1, 10 do
    for _, hit in ipairs(timeline.list) do
      reached[hit.seq] = true
    end
    timeline:older()
  end
  h.equal(vim.tbl_count(reached), 1000)
  timeline:newer()
  h.equal(timeline.list[1].seq, 201)
end)

h.test('the window follows the newest hit until somebody looks elsewhere', function()
  local timeline, store = timeline_of(1000)
  timeline:zoom(0.25)
  local width = timeline:width()
  store:add(vim.tbl_extend('force', store:find(1000), { seq = 1001, time = '2026-11-23T10:00:09.000000000Z' }))
  timeline:load()
  assert(timeline.window.to_ns > 8.9e9, vim.inspect(timeline.window))
  assert(math.abs(timeline:width() - width) <= 2)
  timeline:pan(-0.5)
  local window = vim.deepcopy(timeline.window)
  timeline:load()
  h.equal(timeline.window, window)
  timeline:show_all()
  assert(timeline.window.from_ns < 0 and timeline.window.to_ns > 8.9e9)
end)

h.test('filters are over counts and list; a text is searched for in the list', function()
  local timeline = timeline_of(1000)
  timeline:set_filter(assert(timeline_module.parse_filter('service=cart QTY=99')))
  h.equal(services(timeline), { { 'cart', 500 } })
  h.equal(
    vim.tbl_map(function(hit)
      return hit.seq
    end, timeline.list),
    { 99, 991, 993, 995, 997, 999 }
  )
end)

h.test('a filter is read as it is typed, and written back', function()
  for typed, expected in pairs({
    [''] = {},
    ['tea cup'] = { text = 'tea cup' },
    ['service=cart host=web-* goroutine=34 tea'] = {
      service = '*cart*',
      host = 'web-*',
      goroutine = 34,
      text = 'tea',
    },
    ['=quantity > 3'] = { when = 'quantity > 3' },
    ['service=cart = quantity == 3'] = { service = '*cart*', when = 'quantity == 3' },
    ['a >= 3'] = { text = 'a >= 3' },
    ['qty=3'] = { text = 'qty=3' },
  }) do
    local read = assert(timeline_module.parse_filter(typed))
    h.equal(read, expected, typed)
    h.equal(timeline_module.parse_filter(timeline_module.filter_text(read)), read, typed)
  end
  local read, problem = timeline_module.parse_filter('goroutine=main')
  h.equal(read, nil)
  h.match(problem, "'main' is not the number")
end)

h.test('a search that is cut short is gone on with', function()
  local pages = {
    { hits = {}, previous = 500, arrived = 9, dropped = 0, evicted = 0 },
    { hits = {}, previous = 300, arrived = 9, dropped = 0, evicted = 0 },
    { hits = {}, arrived = 9, dropped = 0, evicted = 0 },
  }
  local before = {}
  local timeline = timeline_module.new(function(request, arguments, on_answer)
    if request == 'timelinePage' then
      table.insert(before, arguments.before or 'newest')
      return on_answer(nil, table.remove(pages, 1))
    end
    on_answer(nil, { from_ns = 0, to_ns = 1, buckets = 1, services = {} })
  end, function() end)
  timeline:load()
  h.equal(before, { 'newest', 500, 300 })
end)

h.test('while one load is under way, ten changes are one more load', function()
  local waiting = {}
  local source = tracer.source_of(store_of(10))
  local draws = 0
  local timeline = timeline_module.new(function(...)
    table.insert(waiting, { ... })
  end, function()
    draws = draws + 1
  end)
  for _ = 1, 10 do
    timeline:load()
  end
  while #waiting > 0 do
    source.ask(unpack(table.remove(waiting, 1)))
  end
  h.equal(draws, 2)
end)

h.test('a refusal and an answer that cannot be read are shown', function()
  local reply
  local timeline = timeline_module.new(function(_, _, on_answer)
    on_answer(unpack(reply))
  end, function() end)
  reply = { 'the adapter\nhas ended' }
  timeline:load()
  h.match(texts(timeline:lines())[2], 'the adapter\\nhas ended')
  reply = { nil, { hits = 'x' } }
  timeline:load()
  h.match(timeline.problem, 'hits must be a list')
end)

h.test('a column of a lane stands for the nearest hit', function()
  local timeline = timeline_of(1000)
  h.equal(timeline:hit_at(1, 1), 2)
  assert(timeline:hit_at(1, timeline.columns) > 900)
  h.equal(timeline:hit_at(9, 1), nil)
end)

h.test('a line of a trace is a hit with its values, and what is none is not taken', function()
  local said = tracer.parse(
    '{"type":"hit","seq":12,"time":"T","uncertainty_ns":1,"host":"web-1","pid":812,"service":"cart","goroutine":null,'
      .. '"function":"cart.Add","file":"/src/cart.go","line":42,"message":"qty=3","values":[{"name":"qty","type":"int",'
      .. '"value":"3","status":"exact","children":[]},{"name":"s","type":"T","value":"{..}","status":"truncated",'
      .. '"children":[{"name":"a","type":"int","value":"1","status":"exact"}]}]}'
  )
  local hit = assert(tracer.hit(assert(said), function()
    return '/code/cart.go'
  end))
  h.equal({ hit.seq, hit.file, hit.goroutine }, { 12, '/code/cart.go', nil })
  local lines
  require('riptrace.dap').variable_lines(hit, function(all)
    lines = all
  end)
  h.equal(lines, { 'qty int = 3', 's T = {..} <truncated>', '  a int = 1' })
  h.equal(tracer.parse('connecting...'), nil)
  h.equal(
    tracer.hit({ type = 'hit' }, function() end),
    nil
  )
end)

h.test('the file with the longest common end is meant', function()
  h.equal(view.common_end('/home/ana/shop/cart/main.go', '/build/src/cart/main.go'), 2)
  h.equal(view.common_end('/a/xmain.go', '/a/main.go'), 0)
end)

h.test('lines with hits get a sign and the newest value, and lose them again', function()
  local path = vim.fn.tempname() .. '.go'
  vim.fn.writefile({ 'a', 'b', 'c' }, path)
  vim.cmd.edit(path)
  marks.setup({ signs = true, virtual_text = 'auto' })
  for seq = 1, 3 do
    marks.add({ seq = seq, file = path, line = 2, message = 'qty=' .. seq .. '\n' })
  end
  -- A file that has become shorter.
  marks.add({ seq = 4, file = path, line = 99, message = 'x' })
  local namespace = vim.api.nvim_get_namespaces()['riptrace.marks']
  local function drawn()
    return vim.api.nvim_buf_get_extmarks(0, namespace, 0, -1, { details = true })
  end
  h.wait(h.ANSWER_MS, 'a mark', function()
    return #drawn() > 0
  end)
  h.equal(#drawn(), 1)
  h.equal(drawn()[1][2], 1)
  h.equal(drawn()[1][4].virt_text[1][1], '  3 hits: qty=3')
  marks.setup({ signs = true, virtual_text = false })
  h.wait(h.ANSWER_MS, 'no text', function()
    return drawn()[1] and not drawn()[1][4].virt_text
  end)
  marks.clear()
  h.equal(drawn(), {})
  vim.cmd('bwipeout!')
end)

h.finish()
