/**
 * The Fleet view as plain data: tracepoints with their probes, hosts with their processes, builds. Does not import
 * vscode; fleetView.ts hands the nodes to the editor as they are.
 *
 * Invariant: a node's id is the same as long as it stands for the same thing, so that the editor keeps it open.
 */
import type { Build, Fleet, Host, Probe, Process, Tracepoint } from "./fleetModel";
import { rateText, type Rates } from "./rates";
import { duration, number, plural } from "./words";

/** What the node is, for the commands that its context menu offers. */
export type NodeKind = "section" | "host" | "process" | "build" | "tracepoint" | "probe" | "site" | "action";

export interface FleetNode {
  readonly id: string;
  readonly kind: NodeKind;
  readonly label: string;
  /** Beside the label, in a weaker colour. */
  readonly description: string;
  /** Lines of plain text. */
  readonly tooltip: string;
  /** A codicon, and a theme colour where the state is to be seen. */
  readonly icon: { readonly name: string; readonly color?: string };
  /** Whether the node is open when it is first shown. */
  readonly open: boolean;
  readonly children: readonly FleetNode[];
  /** Which processes it stands for, as a launch configuration says it. */
  readonly selector?: string;
  /** A tracepoint of the session that was asked. */
  readonly own?: true;
  /** The source that it stands for. */
  readonly source?: { readonly file: string; readonly line: number };
  /** What a click does, where that is not to show the source: a command and its arguments. */
  readonly command?: { readonly id: string; readonly arguments: readonly unknown[] };
}

const RED = "charts.red";
const GREEN = "charts.green";
const YELLOW = "charts.yellow";
const GREY = "disabledForeground";

export function fleetTree(fleet: Fleet, rates: Rates): readonly FleetNode[] {
  return [
    section(
      "tracepoints",
      "Tracepoints",
      fleet.tracepoints.map((each) => tracepointNode(each, rates)),
    ),
    section(
      "hosts",
      "Hosts",
      fleet.hosts.map((host) => hostNode(host)),
    ),
    section("builds", "Builds", buildNodes(fleet), false),
  ];
}

/**
 * What to do where there is no fleet to show. The view says why above them: VS Code shows no welcome text beside that.
 */
export function adviceNodes(why: "problem" | "missing"): readonly FleetNode[] {
  const here =
    why === "missing"
      ? [action("Say where the binary is", "gear", "workbench.action.openSettings", "riptrace.path")]
      : [
          action("Start a fleet on this machine", "server-process", "riptrace.startFleet"),
          action("Say where the fleet is", "gear", "riptrace.openSettings"),
        ];
  return [
    ...here,
    action("Try again", "refresh", "riptrace.refreshFleet"),
    action("First steps", "book", "riptrace.openWalkthrough"),
  ];
}

function action(label: string, icon: string, id: string, ...given: readonly unknown[]): FleetNode {
  return {
    ...{ id: `action ${id}`, kind: "action", label, description: "", tooltip: label, icon: { name: icon } },
    ...{ open: false, children: [], command: { id, arguments: given } },
  };
}

function section(id: string, label: string, children: readonly FleetNode[], open = true): FleetNode {
  const description = children.length === 0 ? "none" : String(children.length);
  return {
    // The editor remembers a node that once had nothing in it as closed: with its first child it is another node.
    id: children.length === 0 ? `no ${id}` : id,
    ...{ kind: "section", label, description, tooltip: `${label}: ${description}`, icon: { name: iconOf(id) } },
    ...{ open: open && children.length > 0, children },
  };
}

function iconOf(sectionId: string): string {
  return sectionId === "tracepoints" ? "debug-breakpoint-log" : sectionId === "hosts" ? "server" : "package";
}

function tracepointNode(tracepoint: Tracepoint, rates: Rates): FleetNode {
  const { id, location, ended, own, local, probes } = tracepoint;
  // A process that does not run the line is no failure, and there may be hundreds.
  const meant = probes.filter(({ state }) => state !== "absent");
  const armed = meant.filter(({ state }) => state === "armed").length;
  const hits = total(probes, ({ hits }) => hits);
  const dropped = total(probes, ({ dropped }) => dropped);
  const rate = rates.ofAll(id, probes);
  const parts = [
    ended ?? `armed ${armed}/${meant.length}`,
    plural(hits, "hit"),
    ...(rate === undefined ? [] : [rateText(rate)]),
    ...(dropped === 0 ? [] : [`${number(dropped)} dropped`]),
  ];
  const failed = meant.filter(({ state }) => state === "refused" || state === "off").length;
  const place = /^(.+):(\d+)$/.exec(location);
  const site = probes.flatMap(({ sites }) => sites)[0];
  const asked = place ? { file: place[1] ?? "", line: Number(place[2]) } : site;
  const source = local === undefined ? asked : { file: local.path, line: local.line };
  return {
    id: `tracepoint ${id}`,
    kind: "tracepoint",
    label: location,
    description: parts.join(", "),
    tooltip: [
      location,
      ended ?? `armed in ${armed} of ${meant.length} processes`,
      ...parts.slice(1),
      ...(own === false ? ["of another session"] : []),
      `tracepoint ${id}`,
    ].join("\n"),
    icon:
      ended !== undefined
        ? { name: "circle-slash", color: GREY }
        : failed > 0
          ? { name: "warning", color: YELLOW }
          : armed > 0
            ? { name: "circle-filled", color: RED }
            : { name: "circle-outline", color: GREY },
    open: failed > 0,
    children: meant.map((probe) => probeNode(id, probe, rates)),
    ...(own === true ? { own } : {}),
    ...(source === undefined ? {} : { source: { file: source.file, line: source.line } }),
  };
}

function probeNode(tracepoint: string, probe: Probe, rates: Rates): FleetNode {
  const { host, pid, service, state, mechanism, reason, note, hits, dropped, sites } = probe;
  const rate = rates.of(tracepoint, probe);
  const parts = [
    mechanism === undefined ? state : `${state} by ${mechanism}`,
    ...(state === "armed" ? [plural(hits, "hit")] : []),
    ...(state === "armed" && rate !== undefined ? [rateText(rate)] : []),
    ...(dropped === 0 ? [] : [`${number(dropped)} dropped`]),
    ...(reason === undefined ? [] : [reason]),
    ...(note === undefined ? [] : [note]),
  ];
  const id = `probe ${tracepoint} ${host} ${pid}`;
  return {
    id,
    kind: "probe",
    label: `${service} on ${host}`,
    description: parts.join(", "),
    tooltip: [`${service}, process ${pid} on ${host}`, ...parts, ...(mechanism ? [costOf(mechanism)] : [])].join("\n"),
    icon: PROBE_ICONS[state],
    open: false,
    selector: `host=${host},pid=${pid}`,
    children: sites.map(({ function: name, file, line }, index) => ({
      id: `${id} site ${index}`,
      kind: "site",
      label: name,
      description: `${file}:${line}`,
      tooltip: `${name}\n${file}:${line}`,
      icon: { name: "symbol-function" },
      open: false,
      children: [],
      source: { file, line },
    })),
  };
}

const PROBE_ICONS = {
  armed: { name: "pass-filled", color: GREEN },
  pending: { name: "history", color: YELLOW },
  refused: { name: "error", color: RED },
  off: { name: "debug-pause", color: YELLOW },
  absent: { name: "circle-outline", color: GREY },
} as const;

/** What a passage costs the process, in words: it is shown beside what was chosen. */
function costOf(mechanism: string): string {
  switch (mechanism) {
    case "jump":
      return "A passage jumps into code beside the program: tens of nanoseconds.";
    case "trap":
      return "A passage traps into a handler inside the process: a few microseconds.";
    case "ptrace":
      return "A passage stops the thread that hits, and no other: tens of microseconds.";
    default:
      return `Mechanism: ${mechanism}.`;
  }
}

function hostNode(host: Host): FleetNode {
  const { name, alive, kernel, version, clockUncertaintyNs, labels, processes } = host;
  const clock = clockUncertaintyNs === undefined ? "clock not known yet" : `clock ±${duration(clockUncertaintyNs)}`;
  return {
    id: `host ${name}`,
    kind: "host",
    label: name,
    description: [...(alive ? [] : ["silent"]), plural(processes.length, "process", "processes"), clock].join(", "),
    tooltip: [
      name,
      alive ? "its agent is heard" : "its agent is not heard: its hits come when it is back, or are counted as lost",
      clock,
      `riptrace ${version}, kernel ${kernel}`,
      ...labelLines(labels),
    ].join("\n"),
    icon: alive ? { name: "vm-running", color: GREEN } : { name: "vm-outline", color: YELLOW },
    open: true,
    selector: `host=${name}`,
    children: processes.map((process) => processNode(host, process)),
  };
}

function processNode(host: Host, process: Process): FleetNode {
  const { pid, service, exe, build, container, labels, refused } = process;
  return {
    id: `process ${host.name} ${pid}`,
    kind: "process",
    label: service,
    description: [`${pid}`, refused === undefined ? buildText(build) : `cannot be traced: ${refused}`].join(", "),
    tooltip: [
      `${service}, process ${pid} on ${host.name}`,
      exe,
      ...(refused === undefined ? [] : [`cannot be traced: ${refused}`]),
      ...buildLines(build),
      ...(container === undefined ? [] : [`container ${container}`]),
      ...labelLines(labels),
    ].join("\n"),
    icon: refused === undefined ? { name: "pulse" } : { name: "lock", color: GREY },
    open: false,
    selector: `host=${host.name},pid=${pid}`,
    children: [],
  };
}

/** Each build once, with where it runs. */
function buildNodes(fleet: Fleet): readonly FleetNode[] {
  const builds = new Map<string, { build: Build; runs: { host: Host; process: Process }[] }>();
  for (const host of fleet.hosts) {
    for (const process of host.processes) {
      const known = builds.get(process.build.id) ?? { build: process.build, runs: [] };
      known.runs.push({ host, process });
      builds.set(process.build.id, known);
    }
  }
  return [...builds.values()].map(({ build, runs }) => ({
    id: `build ${build.id}`,
    kind: "build",
    label: build.module ?? runs[0]?.process.exe ?? build.id,
    description: [...buildParts(build), plural(runs.length, "process", "processes")].join(", "),
    tooltip: buildLines(build).join("\n"),
    icon: build.dwarf ? { name: "file-binary" } : { name: "file-binary", color: YELLOW },
    open: false,
    ...(build.module === undefined ? {} : { selector: `module=${build.module}` }),
    children: runs.map(({ host, process }) => {
      const node = processNode(host, process);
      return { ...node, id: `build ${build.id} ${node.id}`, description: `${process.pid} on ${host.name}` };
    }),
  }));
}

function buildText(build: Build): string {
  return buildParts(build).join(", ");
}

function buildParts(build: Build): string[] {
  const { language, goVersion, revision, modified, dwarf } = build;
  return [
    goVersion ?? language,
    ...(revision === undefined ? [] : [`${revision.slice(0, 12)}${modified ? " with changes" : ""}`]),
    ...(dwarf ? [] : ["no debug information"]),
  ];
}

function buildLines(build: Build): string[] {
  const { id, module, moduleVersion } = build;
  return [
    ...(module === undefined ? [] : [`${module}${moduleVersion === undefined ? "" : ` ${moduleVersion}`}`]),
    buildText(build),
    `build ${id}`,
  ];
}

function labelLines(labels: ReadonlyMap<string, string>): string[] {
  return [...labels].map(([name, value]) => `${name}=${value}`);
}

function total<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((sum, item) => sum + of(item), 0);
}
