/**
 * Runs `riptrace ps` and turns how it ended into what the user reads. Does not import vscode.
 */
import { execFile } from "node:child_process";
import { DecodeError } from "./decode";
import { parsePs, type Fleet } from "./fleetModel";

/** How long `riptrace ps` may take: it has its own shorter deadlines; past this one it hangs. */
export const FLEET_DEADLINE_MS = 15_000;
/** A process is about 500 bytes as JSON: more than this is no fleet that a person looks at. */
export const FLEET_OUTPUT_BYTES_MAX = 16 * 1024 * 1024;

/** The exit status of `riptrace` when the fleet could not be reached. */
const EXIT_UNREACHABLE = 4;
/** Its exit status when the fleet has no process that can be traced. */
const EXIT_NOTHING = 3;

/** Which fleet to ask, and how. */
export interface FleetQuery {
  readonly binary: string;
  /** Where `riptrace.toml` is searched. */
  readonly cwd: string | undefined;
  /** Holds `NATS_URL` where the user gave one. */
  readonly env: NodeJS.ProcessEnv;
  /** NATS credentials file. */
  readonly creds: string | undefined;
}

export interface FleetReport {
  /** What is shown in an editor; empty when there is nothing to show. */
  readonly text: string;
  /** A sentence for a notification when there is no fleet to show. */
  readonly problem: string | undefined;
}

/** The fleet as `riptrace ps` prints it. */
export async function showFleet(query: FleetQuery): Promise<FleetReport> {
  const { status, stdout, stderr } = await runPs(query, []);
  return reportOf(status, stdout, stderr);
}

/** What a look at the fleet came to. */
export type FleetLook =
  | { readonly kind: "fleet"; readonly fleet: Fleet }
  /** `problem` is a sentence that says what is wrong and what to do; `missing`: there is no binary to ask with. */
  | { readonly kind: "problem" | "missing"; readonly problem: string };

/** The fleet as data. */
export async function readFleet(query: FleetQuery): Promise<FleetLook> {
  const { status, stdout, stderr } = await runPs(query, ["--json"]);
  return lookOf(status, stdout, stderr);
}

/** A fleet in which no process can be traced is a fleet all the same: its hosts are shown. */
export function lookOf(status: number | string, stdout: string, stderr: string): FleetLook {
  const { problem } = reportOf(status, stdout, stderr);
  if (problem !== undefined && !(status === EXIT_NOTHING && stdout.trim() !== "")) {
    return { kind: "problem", problem };
  }
  try {
    return { kind: "fleet", fleet: parsePs(stdout) };
  } catch (error) {
    if (!(error instanceof DecodeError)) {
      throw error;
    }
    return {
      kind: "problem",
      problem: `RipTrace: the answer of 'riptrace ps' cannot be read (${error.message}). Is the binary as new as this extension?`,
    };
  }
}

interface PsEnd {
  readonly status: number | string;
  readonly stdout: string;
  readonly stderr: string;
}

function runPs(query: FleetQuery, flags: readonly string[]): Promise<PsEnd> {
  const { binary, cwd, env, creds } = query;
  return new Promise((resolve) => {
    execFile(
      binary,
      ["ps", ...flags, ...(creds === undefined ? [] : ["--creds", creds])],
      { cwd, env, timeout: FLEET_DEADLINE_MS, maxBuffer: FLEET_OUTPUT_BYTES_MAX },
      (error, stdout, stderr) => {
        const status = error === null ? 0 : typeof error.code === "number" ? error.code : (error.code ?? "killed");
        resolve({ status, stdout, stderr });
      },
    );
  });
}

/** `status` is the exit status, or the name of the error that kept the command from running to its end. */
export function reportOf(status: number | string, stdout: string, stderr: string): FleetReport {
  const text = [stdout.trimEnd(), stderr.trimEnd()].filter((part) => part !== "").join("\n");
  if (status === 0) {
    return { text, problem: undefined };
  }
  // The program's own words come first: they name what is wrong and what to do.
  const said = lastLine(stderr);
  if (said !== "") {
    return { text, problem: `RipTrace: ${said}` };
  }
  const problem =
    status === EXIT_UNREACHABLE
      ? "RipTrace: the fleet could not be reached. Start one here with 'riptrace up', or set riptrace.nats."
      : `RipTrace: 'riptrace ps' ended with ${status} and said nothing. The log has the command.`;
  return { text, problem };
}

function lastLine(text: string): string {
  return (text.trimEnd().split("\n").at(-1) ?? "").trim();
}
