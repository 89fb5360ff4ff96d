--- The fleet as data and as lines: read from the adapter's `riptrace/fleet` or from `riptrace ps --json`.
--- Does not touch the editor's state: fleet_view.lua shows it.
local decode = require('riptrace.decode')
local text = require('riptrace.text')

local M = {}

--- More than this is no list for a person.
M.ENTRIES_MAX = 20000
--- Looks that are nearer than this say nothing of a rate: agents report their counts about once a second.
local SPAN_MS_MIN = 900

---@class riptrace.Build
---@field id string
---@field language string
---@field dwarf boolean
---@field go_version? string
---@field module? string
---@field vcs_revision? string
---@field vcs_modified? boolean

---@class riptrace.Process
---@field host string
---@field pid integer
---@field service string
---@field exe string
---@field build riptrace.Build
---@field refused? string Why it cannot be traced

---@class riptrace.Host
---@field name string
---@field alive boolean
---@field kernel string
---@field version string
---@field clock_uncertainty_ns? integer
---@field processes riptrace.Process[]

---@class riptrace.Probe
---@field host string
---@field pid integer
---@field service string
---@field state string pending, armed, refused, absent or off
---@field mechanism? string
---@field sites { function: string, file: string, line: integer }[]
---@field reason? string
---@field note? string
---@field hits integer
---@field dropped integer
---@field hits_per_s? number

---@class riptrace.Tracepoint
---@field id string
---@field location string
---@field ended? string
---@field own? boolean Of the session that was asked
---@field path? string Local
---@field line? integer Local
---@field probes riptrace.Probe[]

---@class riptrace.Fleet
---@field hosts riptrace.Host[]
---@field tracepoints riptrace.Tracepoint[]

local function read_build(value, place)
  local build = decode.fields(value, place)
  decode.text(build.id, place .. '.id')
  decode.text(build.language, place .. '.language')
  return build
end

local function read_process(process, host, build, place)
  return {
    host = host,
    pid = decode.count(process.pid, place .. '.pid'),
    service = decode.text(process.service, place .. '.service'),
    exe = decode.text(process.exe, place .. '.exe'),
    build = build,
    refused = process.refused,
  }
end

local function read_host(host, place)
  return {
    name = decode.text(host.host, place .. '.host'),
    alive = host.alive == true,
    kernel = decode.text(host.kernel, place .. '.kernel'),
    version = decode.text(host.version, place .. '.version'),
    clock_uncertainty_ns = host.clock_uncertainty_ns,
    processes = {},
  }
end

local function read_site(value, place)
  local site = decode.fields(value, place)
  decode.text(site.file, place .. '.file')
  decode.count(site.line, place .. '.line')
  return { ['function'] = decode.text(site['function'], place .. '.function'), file = site.file, line = site.line }
end

local function read_probe(probe, host, pid, service, sites, place)
  return {
    host = decode.text(host, place .. '.host'),
    pid = decode.count(pid, place .. '.pid'),
    service = decode.text(service, place .. '.service'),
    state = decode.text(probe.state, place .. '.state'),
    mechanism = probe.mechanism,
    sites = decode.list(sites, place .. '.sites', M.ENTRIES_MAX, read_site),
    reason = probe.reason,
    note = probe.note,
    hits = decode.count(probe.hits, place .. '.hits'),
    dropped = decode.count(probe.dropped, place .. '.dropped'),
    hits_per_s = probe.hits_per_s,
  }
end

--- The answer to `riptrace/fleet`.
---@param answer any
---@return riptrace.Fleet?, string? problem
function M.parse(answer)
  return decode.try(function(value)
    local view = decode.fields(decode.without_null(value), 'fleet')
    local builds, probes = {}, {}
    for _, build in ipairs(decode.list(view.builds, 'builds', M.ENTRIES_MAX, read_build)) do
      builds[build.id] = build
    end
    local hosts = decode.list(view.hosts, 'hosts', M.ENTRIES_MAX, function(entry, place)
      local host = read_host(decode.fields(entry, place), place)
      host.processes = decode.list(entry.processes, place .. '.processes', M.ENTRIES_MAX, function(process, at)
        decode.fields(process, at)
        for _, probe in ipairs(decode.list(process.probes, at .. '.probes', M.ENTRIES_MAX, decode.fields)) do
          local id = decode.text(probe.tracepoint, at .. '.probes.tracepoint')
          probes[id] = probes[id] or {}
          table.insert(probes[id], read_probe(probe, host.name, process.pid, process.service, probe.sites, at .. '.probes'))
        end
        local build = decode.fields(builds[process.build], ('%s.build %s'):format(at, tostring(process.build)))
        return read_process(process, host.name, build, at)
      end)
      return host
    end)
    local tracepoints = decode.list(view.tracepoints, 'tracepoints', M.ENTRIES_MAX, function(entry, place)
      local tracepoint = decode.fields(entry, place)
      local id = decode.text(tracepoint.id, place .. '.id')
      return {
        id = id,
        location = decode.text(tracepoint.location, place .. '.location'),
        ended = tracepoint.ended,
        own = tracepoint.own,
        path = tracepoint.path,
        line = tracepoint.line,
        probes = probes[id] or {},
      }
    end)
    return { hosts = hosts, tracepoints = tracepoints }
  end, answer)
end

--- The lines of `riptrace ps --json`.
---@param output string
---@return riptrace.Fleet?, string? problem
function M.parse_ps(output)
  return decode.try(function()
    local fleet, hosts, tracepoints = { hosts = {}, tracepoints = {} }, {}, {}
    local index = 0
    for line in vim.gsplit(output, '\n', { trimempty = true }) do
      index = index + 1
      local place = 'line ' .. index
      local decoded, said = pcall(vim.json.decode, line)
      said = decode.fields(decoded and decode.without_null(said) or line:sub(1, 60), place)
      if said.type == 'host' then
        local host = read_host(said, place)
        hosts[host.name] = host
        table.insert(fleet.hosts, host)
      elseif said.type == 'process' and hosts[said.host] then
        local process = read_process(said, said.host, read_build(said.build, place .. '.build'), place)
        table.insert(hosts[said.host].processes, process)
      elseif said.type == 'tracepoint' then
        local id = decode.text(said.tracepoint, place .. '.tracepoint')
        local location = decode.text(said.location, place .. '.location')
        tracepoints[id] = { id = id, location = location, ended = said.ended, probes = {} }
        table.insert(fleet.tracepoints, tracepoints[id])
      elseif said.type == 'status' and tracepoints[said.tracepoint] then
        local probe = read_probe(said, said.host, said.pid, said.service, said.places, place)
        table.insert(tracepoints[said.tracepoint].probes, probe)
      end
    end
    return fleet
  end, output)
end

--- Rates where the answer has none: from the counts of one look to the next. Returns what the next call is given.
---@param fleet riptrace.Fleet
---@param last table<string, { at_ms: number, hits: integer, rate?: number }>
---@param now_ms number a clock that never runs backwards
---@return table
function M.add_rates(fleet, last, now_ms)
  local looks = {}
  for _, tracepoint in ipairs(fleet.tracepoints) do
    for _, probe in ipairs(tracepoint.probes) do
      local key = ('%s %s %d'):format(tracepoint.id, probe.host, probe.pid)
      local known = last[key]
      if not known or probe.hits < known.hits then
        known = { at_ms = now_ms, hits = probe.hits }
      elseif now_ms - known.at_ms >= SPAN_MS_MIN then
        local rate = (probe.hits - known.hits) * 1000 / (now_ms - known.at_ms)
        known = { at_ms = now_ms, hits = probe.hits, rate = rate }
      end
      looks[key] = known
      probe.hits_per_s = probe.hits_per_s or known.rate
    end
  end
  return looks
end

--- What a line of the buffer stands for.
---@class riptrace.FleetTarget
---@field selector? string
---@field file? string
---@field line? integer
---@field tracepoint? riptrace.Tracepoint

local STATE_GROUPS = {
  armed = 'RipTraceArmed',
  pending = 'RipTraceWaiting',
  off = 'RipTraceWaiting',
  refused = 'RipTraceRefused',
  absent = 'RipTraceWeak',
}

local function total(probes, field)
  local sum
  for _, probe in ipairs(probes) do
    if probe[field] then
      sum = (sum or 0) + probe[field]
    end
  end
  return sum
end

--- Hits, rate and drops of these probes.
local function counts(probes)
  local parts = { text.plural(total(probes, 'hits') or 0, 'hit') }
  local rate, dropped = total(probes, 'hits_per_s'), total(probes, 'dropped') or 0
  if rate then
    table.insert(parts, text.rate(rate))
  end
  if dropped > 0 then
    table.insert(parts, text.number(dropped) .. ' dropped')
  end
  return parts
end

local function build_text(build)
  local parts = { build.go_version or build.language }
  if build.vcs_revision then
    table.insert(parts, build.vcs_revision:sub(1, 12) .. (build.vcs_modified and ' with changes' or ''))
  end
  if not build.dwarf then
    table.insert(parts, 'no debug information')
  end
  return table.concat(parts, ', ')
end

---@param fleet riptrace.Fleet
---@return riptrace.Chunks[] lines
---@return table<integer, riptrace.FleetTarget> targets by line, from 1
function M.lines(fleet)
  local lines, targets = {}, {}
  local function add(chunks, target)
    table.insert(lines, chunks)
    targets[#lines] = target
  end
  local function heading(words, count)
    add({ { words, 'Title' }, { count == 0 and '  none' or ('  %d'):format(count), 'RipTraceWeak' } })
  end

  heading('Tracepoints', #fleet.tracepoints)
  for _, tracepoint in ipairs(fleet.tracepoints) do
    local meant = vim.tbl_filter(function(probe)
      return probe.state ~= 'absent'
    end, tracepoint.probes)
    local armed = vim.iter(meant):fold(0, function(sum, probe)
      return sum + (probe.state == 'armed' and 1 or 0)
    end)
    local site = meant[1] and meant[1].sites[1]
    local file, line = tracepoint.location:match('^(.+):(%d+)$')
    local target = {
      tracepoint = tracepoint,
      file = tracepoint.path or file or (site and site.file),
      line = tracepoint.line or tonumber(line) or (site and site.line),
    }
    local parts = { tracepoint.ended or ('armed in %d of %d'):format(armed, #meant) }
    vim.list_extend(parts, counts(tracepoint.probes))
    if tracepoint.own == false then
      table.insert(parts, 'of another session')
    end
    add({
      { '  ● ', armed > 0 and not tracepoint.ended and 'RipTraceArmed' or 'RipTraceWeak' },
      { tracepoint.location, 'Identifier' },
      { '  ' .. table.concat(parts, ', ') },
    }, target)
    for _, probe in ipairs(meant) do
      local said = vim.list_extend({}, probe.state == 'armed' and counts({ probe }) or {})
      vim.list_extend(said, vim.tbl_map(text.one_line, { probe.reason or probe.note }))
      add({
        { ('      %s on %s  '):format(probe.service, probe.host) },
        {
          probe.mechanism and ('%s by %s'):format(probe.state, probe.mechanism) or probe.state,
          STATE_GROUPS[probe.state],
        },
        { #said > 0 and ', ' .. table.concat(said, ', ') or '' },
      }, {
        selector = ('host=%s,pid=%d'):format(probe.host, probe.pid),
        file = probe.sites[1] and probe.sites[1].file,
        line = probe.sites[1] and probe.sites[1].line,
      })
    end
  end

  add({})
  heading('Hosts', #fleet.hosts)
  local builds, order = {}, {}
  for _, host in ipairs(fleet.hosts) do
    local clock = host.clock_uncertainty_ns and ('clock ±%s'):format(text.duration(host.clock_uncertainty_ns))
      or 'clock not known yet'
    add({
      { '  ' .. host.name, 'Directory' },
      { host.alive and '' or '  silent', 'RipTraceRefused' },
      { ('  %s, %s, kernel %s'):format(text.plural(#host.processes, 'process', 'processes'), clock, host.kernel) },
    }, { selector = 'host=' .. host.name })
    for _, process in ipairs(host.processes) do
      local id = process.build.id
      if not builds[id] then
        builds[id] = { build = process.build, processes = {} }
        table.insert(order, id)
      end
      table.insert(builds[id].processes, process)
      add({
        { ('      %s'):format(process.service), 'Identifier' },
        { ('  %d  %s  '):format(process.pid, process.exe) },
        process.refused and { 'cannot be traced: ' .. process.refused, 'RipTraceRefused' }
          or { build_text(process.build), 'RipTraceWeak' },
      }, { selector = ('host=%s,pid=%d'):format(host.name, process.pid) })
    end
  end

  add({})
  heading('Builds', #order)
  for _, id in ipairs(order) do
    local build, processes = builds[id].build, builds[id].processes
    add({
      { '  ' .. (build.module or processes[1].exe), 'Directory' },
      { ('  %s, %s'):format(build_text(build), text.plural(#processes, 'process', 'processes')) },
    }, { selector = build.module and 'module=' .. build.module or nil })
    add({ { '      ' .. id, 'RipTraceWeak' } })
  end
  return lines, targets
end

return M
