/**
 * Entry: wires the parts to the editor and holds no logic of its own.
 */
import * as vscode from "vscode";
import { registerCommands, SHOW_TIMELINE } from "./commands";
import { registerContexts } from "./contexts";
import { registerDebugger } from "./debugger";
import { fleetQuery } from "./fleetQuery";
import { FleetView } from "./fleetView";
import { LanguageServer } from "./languageServer";
import { Sessions } from "./sessions";
import { SECTION } from "./settings";
import { registerStatusBar } from "./statusBar";
import { TimelineView } from "./timelineView";

let languageServer: LanguageServer | undefined;

export function activate(context: vscode.ExtensionContext): void {
  const log = vscode.window.createOutputChannel("RipTrace", { log: true });
  languageServer = new LanguageServer(log);
  const sessions = new Sessions();
  const fleetView = new FleetView(sessions, fleetQuery, log);
  const timelineView = new TimelineView(context.extensionUri, sessions, log);
  context.subscriptions.push(
    log,
    sessions,
    fleetView,
    timelineView,
    registerContexts(sessions),
    registerDebugger(log),
    registerStatusBar(sessions, { session: SHOW_TIMELINE, none: "riptrace.attach" }),
    registerCommands({ log, languageServer, sessions, fleetView, timelineView }),
    vscode.debug.onDidChangeBreakpoints(() => void languageServer?.tellBreakpoints()),
    vscode.workspace.onDidChangeConfiguration((change) => {
      // `trace.server` is followed by the client itself.
      if (["path", "nats", "languageServer"].some((name) => change.affectsConfiguration(`${SECTION}.${name}`))) {
        void languageServer?.restart();
        void fleetView.refresh();
      }
    }),
  );
  void languageServer.restart();
}

export async function deactivate(): Promise<void> {
  await languageServer?.stop();
}
