/**
 * Starts, restarts and stops `riptrace lsp`. One server for the window; a restart waits for the old one to end.
 */
import * as vscode from "vscode";
import { LanguageClient, type LanguageClientOptions, type ServerOptions } from "vscode-languageclient/node";
import { BREAKPOINTS, linesByDocument } from "./breakpoints";
import { childEnvironment } from "./environment";
import { readSettings, reportMissingBinary, searchBinary, workspaceFolders } from "./settings";

/** The server's own command; its arguments are `{ uri, line }`. */
const SHOW_READABLE = "riptrace.show";

export const LANGUAGES = ["go", "rust", "c", "cpp"] as const;

export class LanguageServer implements vscode.Disposable {
  private client: LanguageClient | undefined;
  /** Starts and stops run one after the other, in the order asked. */
  private queue: Promise<void> = Promise.resolve();
  /** A missing binary is told once: the editor is also used without a fleet. */
  private toldMissing = false;

  constructor(private readonly log: vscode.LogOutputChannel) {}

  /** Also the first start. Does not fail: what went wrong is shown and logged. */
  restart(): Promise<void> {
    return this.enqueue(async () => {
      await this.stopNow();
      await this.startNow();
    });
  }

  stop(): Promise<void> {
    return this.enqueue(() => this.stopNow());
  }

  dispose(): void {
    void this.stop();
  }

  private enqueue(step: () => Promise<void>): Promise<void> {
    this.queue = this.queue.then(step).catch((error: unknown) => {
      this.log.error(`language server: ${error instanceof Error ? error.message : String(error)}`);
    });
    return this.queue;
  }

  private async startNow(): Promise<void> {
    const settings = readSettings();
    if (!settings.languageServerEnabled) {
      this.log.info("the language server is off (riptrace.languageServer.enable)");
      return;
    }
    const search = searchBinary();
    if (search.kind === "missing") {
      this.log.warn(search.message);
      if (!this.toldMissing) {
        this.toldMissing = true;
        void reportMissingBinary(search.message);
      }
      return;
    }
    const cwd = workspaceFolders()[0];
    // Without `transport` the client speaks on the standard streams and adds no flag of its own.
    const server: ServerOptions = {
      command: search.path,
      args: ["lsp"],
      options: { env: childEnvironment(process.env, settings.nats), ...(cwd === undefined ? {} : { cwd }) },
    };
    const client: LanguageClientOptions = {
      documentSelector: [
        ...LANGUAGES.map((language) => ({ scheme: "file", language })),
        // Whatever language another extension takes it for.
        { scheme: "file", pattern: "**/riptrace.toml" },
        { scheme: "file", pattern: "**/{scenario,*.scenario}.toml" },
      ],
      outputChannel: this.log,
      traceOutputChannel: this.log,
    };
    this.log.info(`starting ${search.path} lsp in ${cwd ?? "no folder"}`);
    this.client = new LanguageClient("riptrace", "RipTrace", server, client);
    await this.client.start();
    await this.tellBreakpoints();
  }

  /** Tells the server which lines have a breakpoint; quiet while it does not run. */
  async tellBreakpoints(): Promise<void> {
    if (!this.client?.isRunning()) {
      return;
    }
    const lines = vscode.debug.breakpoints
      .filter((breakpoint) => breakpoint instanceof vscode.SourceBreakpoint)
      .map(({ location, enabled }) => ({ uri: location.uri.toString(), line: location.range.start.line, enabled }));
    await this.client.sendNotification(BREAKPOINTS, { breakpoints: linesByDocument(lines) });
  }

  /**
   * Shows behind the lines around the cursor what a tracepoint can read there, or hides it again. The server says itself
   * how it went.
   */
  async showReadable(): Promise<void> {
    const editor = vscode.window.activeTextEditor;
    if (editor === undefined || this.client?.isRunning() !== true) {
      const why = editor === undefined ? "open a source file first" : "the language server does not run";
      void vscode.window.showWarningMessage(`RipTrace: ${why}`);
      return;
    }
    const at = { uri: editor.document.uri.toString(), line: editor.selection.active.line };
    try {
      await this.client.sendRequest("workspace/executeCommand", { command: SHOW_READABLE, arguments: [at] });
    } catch (error) {
      void vscode.window.showErrorMessage(`RipTrace: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  private async stopNow(): Promise<void> {
    const client = this.client;
    this.client = undefined;
    if (client?.isRunning()) {
      await client.stop();
    }
    await client?.dispose();
  }
}
