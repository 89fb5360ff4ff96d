/**
 * Entry: wires the parts to the editor and holds no logic of its own.
 */
import * as vscode from "vscode";
import { registerCommands, SHOW_FLEET } from "./commands";
import { registerDebugger } from "./debugger";
import { LanguageServer } from "./languageServer";
import { SECTION } from "./settings";
import { registerStatusBar } from "./statusBar";

let languageServer: LanguageServer | undefined;

export function activate(context: vscode.ExtensionContext): void {
  const log = vscode.window.createOutputChannel("RipTrace", { log: true });
  languageServer = new LanguageServer(log);
  context.subscriptions.push(
    log,
    registerDebugger(log),
    registerStatusBar(SHOW_FLEET),
    registerCommands(log, languageServer),
    vscode.debug.onDidChangeBreakpoints(() => void languageServer?.tellBreakpoints()),
    vscode.workspace.onDidChangeConfiguration((change) => {
      // `trace.server` is followed by the client itself.
      if (["path", "nats", "languageServer"].some((name) => change.affectsConfiguration(`${SECTION}.${name}`))) {
        void languageServer?.restart();
      }
    }),
  );
  void languageServer.restart();
}

export async function deactivate(): Promise<void> {
  await languageServer?.stop();
}
