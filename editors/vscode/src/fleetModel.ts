/**
 * The fleet as the extension knows it: read from the adapter's `riptrace/fleet` or from the lines of
 * `riptrace ps --json`. Does not import vscode.
 *
 * Invariant: what is shown was said by the fleet. An answer that cannot be read is an error as a whole, never a half.
 */
import { count, DecodeError, fields, flag, list, optional, quantity, text, texts, type Fields } from "./decode";

/** More hosts, processes or tracepoints than this are no tree for a person, and no fleet that RipTrace is made for. */
export const HOSTS_MAX = 10_000;
export const PROCESSES_MAX = 20_000;
export const TRACEPOINTS_MAX = 10_000;
/** Places that one probe has patched: a line that was inlined into many functions has dozens. */
const SITES_MAX = 10_000;

export interface Fleet {
  readonly hosts: readonly Host[];
  readonly tracepoints: readonly Tracepoint[];
}

export interface Host {
  readonly name: string;
  /** Whether its agent is heard. */
  readonly alive: boolean;
  readonly version: string;
  readonly kernel: string;
  readonly labels: ReadonlyMap<string, string>;
  /** In nanoseconds; undefined before the first exchange of clocks. */
  readonly clockUncertaintyNs: number | undefined;
  readonly processes: readonly Process[];
}

export interface Process {
  readonly pid: number;
  readonly service: string;
  readonly exe: string;
  readonly build: Build;
  readonly container: string | undefined;
  readonly labels: ReadonlyMap<string, string>;
  /** Why it cannot be traced. */
  readonly refused: string | undefined;
}

export interface Build {
  readonly id: string;
  readonly language: string;
  /** Whether the binary has debug information. */
  readonly dwarf: boolean;
  readonly goVersion: string | undefined;
  readonly module: string | undefined;
  readonly moduleVersion: string | undefined;
  readonly revision: string | undefined;
  /** The build's sources were not those of its revision. */
  readonly modified: boolean;
}

export interface Tracepoint {
  readonly id: string;
  /** As it was asked for: `FILE:LINE` or a function's name. */
  readonly location: string;
  /** Why it has ended by itself. */
  readonly ended: string | undefined;
  /** Whether it is of the session that was asked; undefined where no session was. */
  readonly own: boolean | undefined;
  /** Where it is in the local checkout, when that is known. */
  readonly local: { readonly path: string; readonly line: number } | undefined;
  readonly probes: readonly Probe[];
}

export const PROBE_STATES = ["pending", "armed", "refused", "absent", "off"] as const;
export type ProbeState = (typeof PROBE_STATES)[number];

/** A tracepoint in one process. */
export interface Probe {
  readonly host: string;
  readonly pid: number;
  readonly service: string;
  readonly state: ProbeState;
  readonly mechanism: string | undefined;
  readonly sites: readonly Site[];
  /** Why it is not armed. */
  readonly reason: string | undefined;
  /** What is to be known of an armed probe. */
  readonly note: string | undefined;
  readonly hits: number;
  readonly dropped: number;
  /** Hits per second, where the answer says so. */
  readonly hitsPerS: number | undefined;
}

/** A patched place. */
export interface Site {
  readonly function: string;
  readonly file: string;
  /** From 1. */
  readonly line: number;
}

/** Reads the adapter's answer to `riptrace/fleet`. Throws DecodeError. */
export function parseFleet(value: unknown): Fleet {
  const view = fields(value, "fleet");
  const builds = new Map(list(view["builds"], "builds", PROCESSES_MAX, parseBuild).map((build) => [build.id, build]));
  const probes = new Map<string, Probe[]>();
  const hosts = list(view["hosts"], "hosts", HOSTS_MAX, (value, place) => {
    const host = fields(value, place);
    const name = text(host["host"], `${place}.host`);
    const processes = list(host["processes"], `${place}.processes`, PROCESSES_MAX, (value, place) => {
      const process = fields(value, place);
      const build = text(process["build"], `${place}.build`);
      const { pid, service } = process;
      list(process["probes"], `${place}.probes`, TRACEPOINTS_MAX, (value, place) => {
        const probe = fields(value, place);
        const tracepoint = text(probe["tracepoint"], `${place}.tracepoint`);
        entry(probes, tracepoint, () => []).push(parseProbe({ ...probe, host: name, pid, service }, place));
      });
      return parseProcess(process, builds.get(build) ?? unknownBuild(build, place), place);
    });
    return parseHost(host, processes, place);
  });
  const tracepoints = list(view["tracepoints"], "tracepoints", TRACEPOINTS_MAX, (value, place) => {
    const tracepoint = fields(value, place);
    const path = optional(tracepoint["path"], `${place}.path`, text);
    const line = optional(tracepoint["line"], `${place}.line`, count);
    const id = text(tracepoint["id"], `${place}.id`);
    return {
      ...parseTracepoint(tracepoint, id, place),
      own: optional(tracepoint["own"], `${place}.own`, flag),
      local: path === undefined || line === undefined ? undefined : { path, line },
      probes: probes.get(id) ?? [],
    };
  });
  return { hosts, tracepoints };
}

function unknownBuild(id: string, place: string): never {
  throw new DecodeError(`${place}.build is '${id}', which is not among the builds`);
}

function parseHost(host: Fields, processes: readonly Process[], place: string): Host {
  return {
    name: text(host["host"], `${place}.host`),
    alive: flag(host["alive"], `${place}.alive`),
    version: text(host["version"], `${place}.version`),
    kernel: text(host["kernel"], `${place}.kernel`),
    labels: texts(host["labels"], `${place}.labels`),
    clockUncertaintyNs: optional(host["clock_uncertainty_ns"], `${place}.clock_uncertainty_ns`, count),
    processes,
  };
}

function parseProcess(process: Fields, build: Build, place: string): Process {
  return {
    pid: count(process["pid"], `${place}.pid`),
    service: text(process["service"], `${place}.service`),
    exe: text(process["exe"], `${place}.exe`),
    build,
    container: optional(process["container"], `${place}.container`, text),
    labels: texts(process["labels"], `${place}.labels`),
    refused: optional(process["refused"], `${place}.refused`, text),
  };
}

function parseBuild(value: unknown, place: string): Build {
  const build = fields(value, place);
  return {
    id: text(build["id"], `${place}.id`),
    language: text(build["language"], `${place}.language`),
    dwarf: flag(build["dwarf"], `${place}.dwarf`),
    goVersion: optional(build["go_version"], `${place}.go_version`, text),
    module: optional(build["module"], `${place}.module`, text),
    moduleVersion: optional(build["module_version"], `${place}.module_version`, text),
    revision: optional(build["vcs_revision"], `${place}.vcs_revision`, text),
    modified: optional(build["vcs_modified"], `${place}.vcs_modified`, flag) ?? false,
  };
}

function parseTracepoint(tracepoint: Fields, id: string, place: string): Tracepoint {
  return {
    id,
    location: text(tracepoint["location"], `${place}.location`),
    ended: optional(tracepoint["ended"], `${place}.ended`, text),
    own: undefined,
    local: undefined,
    probes: [],
  };
}

function parseProbe(probe: Fields, place: string): Probe {
  const state = text(probe["state"], `${place}.state`);
  if (!isProbeState(state)) {
    throw new DecodeError(`${place}.state is '${state}': expected ${PROBE_STATES.join(", ")}`);
  }
  return {
    host: text(probe["host"], `${place}.host`),
    pid: count(probe["pid"], `${place}.pid`),
    service: text(probe["service"], `${place}.service`),
    state,
    mechanism: optional(probe["mechanism"], `${place}.mechanism`, text),
    sites: list(probe["sites"], `${place}.sites`, SITES_MAX, parseSite),
    reason: optional(probe["reason"], `${place}.reason`, text),
    note: optional(probe["note"], `${place}.note`, text),
    hits: count(probe["hits"], `${place}.hits`),
    dropped: count(probe["dropped"], `${place}.dropped`),
    hitsPerS: optional(probe["hits_per_s"], `${place}.hits_per_s`, quantity),
  };
}

function isProbeState(word: string): word is ProbeState {
  return (PROBE_STATES as readonly string[]).includes(word);
}

function parseSite(value: unknown, place: string): Site {
  const site = fields(value, place);
  return {
    function: text(site["function"], `${place}.function`),
    file: text(site["file"], `${place}.file`),
    line: count(site["line"], `${place}.line`),
  };
}

/** Reads the lines of `riptrace ps --json`. Throws DecodeError. */
export function parsePs(output: string): Fleet {
  const hosts: Fields[] = [];
  const processes = new Map<string, Process[]>();
  const tracepoints = new Map<string, Tracepoint>();
  const probes = new Map<string, Probe[]>();
  for (const [index, line] of output.split("\n").entries()) {
    if (line.trim() === "") {
      continue;
    }
    const place = `line ${index + 1}`;
    const said = fields(parseJson(line, place), place);
    switch (said["type"]) {
      case "host":
        hosts.push(said);
        break;
      case "process": {
        const process = parseProcess(said, parseBuild(said["build"], `${place}.build`), place);
        entry(processes, text(said["host"], `${place}.host`), () => []).push(process);
        break;
      }
      case "tracepoint": {
        const id = text(said["tracepoint"], `${place}.tracepoint`);
        tracepoints.set(id, parseTracepoint(said, id, place));
        break;
      }
      case "status": {
        // `sites` of a status line is how many there are; the places are in `places`.
        const probe = parseProbe({ ...said, sites: said["places"] }, place);
        entry(probes, text(said["tracepoint"], `${place}.tracepoint`), () => []).push(probe);
        break;
      }
      // A newer `riptrace` may say more.
    }
  }
  return {
    hosts: hosts.map((host, index) => parseHost(host, processes.get(String(host["host"])) ?? [], `host ${index + 1}`)),
    tracepoints: [...tracepoints.values()].map((each) => ({ ...each, probes: probes.get(each.id) ?? [] })),
  };
}

function parseJson(line: string, place: string): unknown {
  try {
    return JSON.parse(line) as unknown;
  } catch {
    throw new DecodeError(`${place} is not JSON: ${line.slice(0, 80)}`);
  }
}

function entry<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const known = map.get(key) ?? make();
  map.set(key, known);
  return known;
}
