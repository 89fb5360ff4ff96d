/**
 * The commands of the palette.
 */
import * as vscode from "vscode";
import { DEBUG_TYPE } from "./configuration";
import { childEnvironment } from "./environment";
import { showFleet, type FleetQuery } from "./fleet";
import type { LanguageServer } from "./languageServer";
import { readSettings, reportMissingBinary, searchBinary, workspaceFolders } from "./settings";

export const SHOW_FLEET = "riptrace.showFleet";

const FLEET_SCHEME = "riptrace-fleet";

export function registerCommands(log: vscode.LogOutputChannel, languageServer: LanguageServer): vscode.Disposable {
  const fleet = new FleetDocument();
  return vscode.Disposable.from(
    fleet,
    vscode.workspace.registerTextDocumentContentProvider(FLEET_SCHEME, fleet),
    vscode.commands.registerCommand(SHOW_FLEET, () => showFleetIn(fleet, log)),
    vscode.commands.registerCommand("riptrace.openLog", () => log.show()),
    vscode.commands.registerCommand("riptrace.restartLanguageServer", () => languageServer.restart()),
  );
}

/** The last answer of `riptrace ps` as a read-only document: a table wants the width of an editor, and searching. */
class FleetDocument implements vscode.TextDocumentContentProvider, vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<vscode.Uri>();
  private readonly uri = vscode.Uri.from({ scheme: FLEET_SCHEME, path: "RipTrace Fleet" });
  private text = "";

  readonly onDidChange = this.changed.event;

  provideTextDocumentContent(): string {
    return this.text;
  }

  async show(text: string): Promise<void> {
    this.text = text;
    this.changed.fire(this.uri);
    const document = await vscode.workspace.openTextDocument(this.uri);
    await vscode.window.showTextDocument(document, { preview: false });
  }

  dispose(): void {
    this.changed.dispose();
  }
}

async function showFleetIn(fleet: FleetDocument, log: vscode.LogOutputChannel): Promise<void> {
  const search = searchBinary();
  if (search.kind === "missing") {
    await reportMissingBinary(search.message);
    return;
  }
  // The fleet that is being debugged, else the one of the settings.
  const session = vscode.debug.activeDebugSession;
  const attached: Record<string, unknown> = session?.type === DEBUG_TYPE ? session.configuration : {};
  const nats: unknown = attached["nats"] ?? readSettings().nats;
  const query: FleetQuery = {
    binary: search.path,
    cwd: workspaceFolders()[0],
    env: childEnvironment(process.env, typeof nats === "string" ? nats : ""),
    creds: typeof attached["creds"] === "string" ? attached["creds"] : undefined,
  };
  // The URL stays out of the log: it may hold a password.
  log.info(`running ${search.path} ps`);
  const report = await vscode.window.withProgress(
    { location: vscode.ProgressLocation.Window, title: "RipTrace: asking the fleet" },
    () => showFleet(query),
  );
  if (report.text !== "") {
    await fleet.show(report.text);
  }
  if (report.problem !== undefined) {
    log.error(report.problem);
    void vscode.window.showErrorMessage(report.problem);
  }
}
