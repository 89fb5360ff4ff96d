/**
 * The environment of the processes that the extension starts. Does not import vscode.
 */

/** `$NATS_URL` from the setting `riptrace.nats`, where it is set; all else as the editor has it. */
export function childEnvironment(own: NodeJS.ProcessEnv, nats: string): NodeJS.ProcessEnv {
  const url = nats.trim();
  return url === "" ? own : { ...own, NATS_URL: url };
}
