/**
 * "Show fleet": runs `riptrace ps` and turns how it ended into what the user reads. Does not import vscode.
 */
import { execFile } from "node:child_process";

/** How long `riptrace ps` may take: it has its own shorter deadlines; past this one it hangs. */
export const FLEET_DEADLINE_MS = 15_000;
/** More than this is no table for a person (a row has about 120 bytes). */
export const FLEET_OUTPUT_BYTES_MAX = 4 * 1024 * 1024;

/** The exit status of `riptrace` when the fleet could not be reached. */
const EXIT_UNREACHABLE = 4;

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

export function showFleet(query: FleetQuery): Promise<FleetReport> {
  const { binary, cwd, env, creds } = query;
  return new Promise((resolve) => {
    execFile(
      binary,
      ["ps", ...(creds === undefined ? [] : ["--creds", creds])],
      { cwd, env, timeout: FLEET_DEADLINE_MS, maxBuffer: FLEET_OUTPUT_BYTES_MAX },
      (error, stdout, stderr) => {
        const status = error === null ? 0 : typeof error.code === "number" ? error.code : (error.code ?? "killed");
        resolve(reportOf(status, stdout, stderr));
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
