/**
 * The Timeline view: a page beside the Debug Console whose questions are handed to the adapter of the session.
 * What is shown and why is in timeline/; this file only hands things over.
 */
import { randomBytes } from "node:crypto";
import * as vscode from "vscode";
import { DecodeError } from "./decode";
import type { Sessions } from "./sessions";
import { parseFromPage, type Action, type FromPage, type ToPage } from "./timeline/messages";
import { pageHtml } from "./timeline/page";

export const TIMELINE_VIEW = "riptrace.timeline";

/** The adapter says with it that other hits or counts are to be seen, or another hit is open; at most twice a second. */
const CHANGED_EVENT = "riptrace/timelineChanged";

export class TimelineView implements vscode.WebviewViewProvider, vscode.Disposable {
  private readonly subscriptions: vscode.Disposable;
  private view: vscode.WebviewView | undefined;
  /** An action that waits for the page to be there. */
  private pending: Action | undefined;

  constructor(
    private readonly extension: vscode.Uri,
    private readonly sessions: Sessions,
    private readonly log: vscode.LogOutputChannel,
  ) {
    this.subscriptions = vscode.Disposable.from(
      vscode.window.registerWebviewViewProvider(TIMELINE_VIEW, this),
      sessions.onDidChange(() => this.tellSession()),
      vscode.debug.onDidReceiveDebugSessionCustomEvent(({ session, event }) => {
        if (session === sessions.current && event === CHANGED_EVENT && this.view?.visible === true) {
          this.post({ type: "changed" });
        }
      }),
    );
  }

  dispose(): void {
    this.subscriptions.dispose();
  }

  resolveWebviewView(view: vscode.WebviewView): void {
    this.view = view;
    const file = (...path: string[]): vscode.Uri => vscode.Uri.joinPath(this.extension, ...path);
    view.webview.options = { enableScripts: true, localResourceRoots: [file("dist"), file("media")] };
    view.webview.html = pageHtml({
      source: view.webview.cspSource,
      script: view.webview.asWebviewUri(file("dist", "timeline.js")).toString(),
      style: view.webview.asWebviewUri(file("media", "timeline.css")).toString(),
      nonce: randomBytes(16).toString("hex"),
    });
    const heard = view.webview.onDidReceiveMessage((message: unknown) => this.received(message));
    const shown = view.onDidChangeVisibility(() => this.post({ type: "changed" }));
    view.onDidDispose(() => {
      heard.dispose();
      shown.dispose();
      this.view = undefined;
    });
  }

  async reveal(): Promise<void> {
    await vscode.commands.executeCommand(`${TIMELINE_VIEW}.focus`);
  }

  /** Does something on the page, which is opened for it when it is not there. */
  async act(action: Action): Promise<void> {
    if (this.view?.visible === true) {
      this.post({ type: "do", action });
      return;
    }
    this.pending = action;
    await this.reveal();
  }

  private received(message: unknown): void {
    let said: FromPage;
    try {
      said = parseFromPage(message);
    } catch (error) {
      if (!(error instanceof DecodeError)) {
        throw error;
      }
      this.log.error(`timeline: ${error.message}`);
      return;
    }
    switch (said.type) {
      case "ready":
        this.tellSession();
        if (this.pending !== undefined) {
          this.post({ type: "do", action: this.pending });
          this.pending = undefined;
        }
        break;
      case "ask":
        void this.answer(said.id, `riptrace/${said.request}`, said.args);
        break;
      case "open":
        void openHit(this.sessions, said.seq);
        break;
      case "attach":
        void vscode.commands.executeCommand("riptrace.attach");
        break;
    }
  }

  private async answer(id: number, request: string, args: object): Promise<void> {
    try {
      const { current } = this.sessions;
      if (current === undefined) {
        throw new Error("no session is running");
      }
      this.post({ type: "answer", id, body: await current.customRequest(request, args) });
    } catch (error) {
      this.post({ type: "refused", id, why: error instanceof Error ? error.message : String(error) });
    }
  }

  private tellSession(): void {
    this.post({ type: "session", name: this.sessions.current?.name });
  }

  private post(message: ToPage): void {
    // A page that is hidden or not drawn yet asks again when it is shown.
    void this.view?.webview.postMessage(message);
  }
}

/** Shows a hit in the debugger: its call stack and variables. */
export async function openHit(sessions: Sessions, seq: number): Promise<void> {
  try {
    await sessions.current?.customRequest("riptrace/openHit", { seq });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    void vscode.window.showErrorMessage(`RipTrace: hit ${seq} cannot be shown: ${why}`);
  }
}
