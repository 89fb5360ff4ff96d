/**
 * Context keys that the manifest chooses by: which steps of the walkthrough are done, which welcome text the Fleet view
 * shows. `riptrace.fleetState` is the Fleet view's own.
 *
 * - `riptrace.binary`: `found` or `missing`
 * - `riptrace.session`: a session runs
 * - `riptrace.hit`: some session has stopped in a hit since the window was opened
 */
import * as vscode from "vscode";
import { DEBUG_TYPE } from "./configuration";
import type { Sessions } from "./sessions";
import { searchBinary, SECTION } from "./settings";

export function registerContexts(sessions: Sessions): vscode.Disposable {
  const set = (key: string, value: unknown): void => {
    void vscode.commands.executeCommand("setContext", `${SECTION}.${key}`, value);
  };
  const lookForBinary = (): void => set("binary", searchBinary().kind);
  lookForBinary();
  return vscode.Disposable.from(
    vscode.workspace.onDidChangeConfiguration((change) => {
      if (change.affectsConfiguration(SECTION)) {
        lookForBinary();
      }
    }),
    // One that was built or copied meanwhile, in a terminal, changes no setting.
    vscode.window.onDidChangeWindowState(({ focused }) => {
      if (focused) {
        lookForBinary();
      }
    }),
    sessions.onDidChange((session) => set("session", session !== undefined)),
    // A binary that was put on PATH since is found by the session that starts with it.
    vscode.debug.onDidStartDebugSession(({ type }) => {
      if (type === DEBUG_TYPE) {
        lookForBinary();
      }
    }),
    vscode.debug.onDidChangeActiveStackItem((item) => {
      if (item?.session.type === DEBUG_TYPE) {
        set("hit", true);
      }
    }),
  );
}
