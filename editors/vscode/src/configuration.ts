/**
 * The launch configuration of the debug type `riptrace`: its shape, what stands in for what was left out, and what is
 * wrong with it. Does not import vscode.
 *
 * The shape is the contract with `riptrace dap` and must match `configurationAttributes` in package.json (a test
 * compares the two).
 */
import type { Fleet } from "./fleetModel";

export const DEBUG_TYPE = "riptrace";
export const DEFAULT_NAME = "RipTrace: attach to the fleet";

/** The arguments of `attach`, as the adapter reads them. */
export interface AttachArguments {
  nats?: string;
  creds?: string;
  /** `host=web-*,service=cart,...` */
  selector?: string;
  substitutePath?: { from: string; to: string }[];
  /** The first hit of a breakpoint opens the timeline; true when absent. */
  stopOnHit?: boolean;
  /** Hits per second of one process, from 1, or no limit. */
  rate?: number | "none";
  /** Expressions over captured values that tell requests apart. */
  correlate?: string | string[];
  cwd?: string;
}

/** The arguments of `launch`, which opens a saved session. */
export const LAUNCH_ARGUMENTS = ["recording", "substitutePath", "stopOnHit", "correlate", "cwd"] as const;

/** Every argument, by name: what the schema must offer. */
export const ATTACH_ARGUMENTS = [
  "nats",
  "creds",
  "selector",
  "substitutePath",
  "stopOnHit",
  "rate",
  "correlate",
  "cwd",
] as const satisfies readonly (keyof AttachArguments)[];

/** A configuration as it comes from launch.json or, empty, from F5 without one. */
export type PartialConfiguration = { [key: string]: unknown; type?: string; request?: string; name?: string };
export type Configuration = PartialConfiguration & { type: string; request: string; name: string };

/** More choices than this are no list that a person reads: they are still reached by typing a selector. */
const CHOICES_MAX = 200;

/** Configurations for the fleet as it is: all of it, then each service, then each host. */
export function choicesOf(fleet: Fleet): Configuration[] {
  const services = new Set<string>();
  for (const host of fleet.hosts) {
    host.processes.filter(({ refused }) => refused === undefined).forEach(({ service }) => services.add(service));
  }
  const choice = (name: string, selector: string): Configuration => ({
    type: DEBUG_TYPE,
    request: "attach",
    name: `RipTrace: ${name}`,
    selector,
    cwd: "${workspaceFolder}",
  });
  return [
    withDefaults({}),
    ...[...services].sort().map((service) => choice(service, `service=${service}`)),
    ...fleet.hosts.map(({ name }) => choice(`all of host ${name}`, `host=${name}`)),
  ].slice(0, CHOICES_MAX);
}

/** F5 without a launch.json arrives as an empty configuration: then it is the default one. */
export function withDefaults(given: PartialConfiguration): Configuration {
  const isEmpty = !given.type && !given.request && !given.name;
  const base = isEmpty ? { type: DEBUG_TYPE, request: "attach", name: DEFAULT_NAME } : {};
  return {
    cwd: "${workspaceFolder}",
    ...given,
    ...base,
    type: given.type || DEBUG_TYPE,
    request: given.request || "attach",
    name: given.name || DEFAULT_NAME,
  };
}

/** What the settings add where the configuration is silent. */
export function withSettings(given: Configuration, settings: { readonly nats: string }): Configuration {
  const nats = settings.nats.trim();
  return given.request === "attach" && given["nats"] === undefined && nats !== "" ? { ...given, nats } : given;
}

/**
 * What is wrong with a configuration, in a sentence that says what to write instead; undefined when nothing is.
 * The adapter checks again: this only tells the user before anything is started.
 */
export function problemOf(given: Configuration): string | undefined {
  if (given.request === "launch") {
    const recording = given["recording"];
    if (typeof recording !== "string" || recording === "") {
      return `"launch" opens a saved session: give its file as "recording". To trace what runs, write "attach".`;
    }
  } else if (given.request !== "attach") {
    return `"request" is "${given.request}": write "attach" to join a fleet, or "launch" to open a saved session.`;
  }
  const correlate = given["correlate"];
  const isText = (value: unknown): boolean => typeof value === "string";
  if (correlate !== undefined && !isText(correlate) && !(Array.isArray(correlate) && correlate.every(isText))) {
    return `"correlate" must be an expression or a list of them, not ${JSON.stringify(correlate)}.`;
  }
  for (const key of ["nats", "creds", "selector", "cwd"] as const) {
    const value = given[key];
    if (value !== undefined && typeof value !== "string") {
      return `"${key}" must be a text, not ${JSON.stringify(value)}.`;
    }
  }
  const stopOnHit = given["stopOnHit"];
  if (stopOnHit !== undefined && typeof stopOnHit !== "boolean") {
    return `"stopOnHit" must be true or false, not ${JSON.stringify(stopOnHit)}.`;
  }
  const rate = given["rate"];
  if (rate !== undefined && rate !== "none" && !(Number.isInteger(rate) && (rate as number) > 0)) {
    return `"rate" must be a whole number of hits per second from 1, or "none", not ${JSON.stringify(rate)}.`;
  }
  return problemOfSubstitutePath(given["substitutePath"]) ?? problemOfSelector(given["selector"]);
}

function problemOfSubstitutePath(value: unknown): string | undefined {
  if (value === undefined) {
    return undefined;
  }
  const isPair = (entry: unknown): boolean => {
    if (typeof entry !== "object" || entry === null) {
      return false;
    }
    const { from, to } = entry as { from?: unknown; to?: unknown };
    return typeof from === "string" && typeof to === "string";
  };
  if (!Array.isArray(value) || !value.every(isPair)) {
    return `"substitutePath" must be a list of {"from": local folder, "to": folder in the build}, not ${JSON.stringify(value)}.`;
  }
  return undefined;
}

function problemOfSelector(value: unknown): string | undefined {
  if (typeof value !== "string" || value.trim() === "") {
    return undefined;
  }
  const bad = value
    .split(",")
    .map((term) => term.trim())
    .find((term) => !/^(host|service|exe|module|pid|label\.[^=]+)=.+$/.test(term));
  if (bad === undefined) {
    return undefined;
  }
  return `"selector" has the term '${bad}': write host=, service=, exe=, module=, label.NAME= or pid= and a value, separated by commas.`;
}
