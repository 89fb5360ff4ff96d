/**
 * Which fleet a command means without a session: that of the settings, from the first folder of the workspace.
 */
import { childEnvironment } from "./environment";
import type { FleetQuery } from "./fleet";
import { readSettings, searchBinary, workspaceFolders } from "./settings";

/** `missing` says why there is no binary to ask with. `attached` is the configuration of a running session. */
export function fleetQuery(attached: Record<string, unknown> = {}): FleetQuery | { readonly missing: string } {
  const search = searchBinary();
  if (search.kind === "missing") {
    return { missing: search.message };
  }
  const nats: unknown = attached["nats"] ?? readSettings().nats;
  return {
    binary: search.path,
    cwd: workspaceFolders()[0],
    env: childEnvironment(process.env, typeof nats === "string" ? nats : ""),
    creds: typeof attached["creds"] === "string" ? attached["creds"] : undefined,
  };
}
