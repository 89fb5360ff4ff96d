/**
 * The running debug sessions of RipTrace, and which one the views speak of: the one that the editor has chosen, else
 * the one that began last.
 */
import * as vscode from "vscode";
import { DEBUG_TYPE } from "./configuration";

export class Sessions implements vscode.Disposable {
  private readonly running: vscode.DebugSession[] = [];
  private readonly changed = new vscode.EventEmitter<vscode.DebugSession | undefined>();
  private readonly subscriptions: vscode.Disposable;
  private shown: vscode.DebugSession | undefined;

  /** Fires when another session is the current one, or none. */
  readonly onDidChange = this.changed.event;

  constructor() {
    this.subscriptions = vscode.Disposable.from(
      this.changed,
      vscode.debug.onDidStartDebugSession((session) => {
        if (session.type === DEBUG_TYPE) {
          this.running.push(session);
          this.update();
        }
      }),
      vscode.debug.onDidTerminateDebugSession((session) => {
        const index = this.running.indexOf(session);
        if (index >= 0) {
          this.running.splice(index, 1);
          this.update();
        }
      }),
      vscode.debug.onDidChangeActiveDebugSession(() => this.update()),
    );
  }

  get current(): vscode.DebugSession | undefined {
    return this.shown;
  }

  dispose(): void {
    this.subscriptions.dispose();
  }

  private update(): void {
    const active = vscode.debug.activeDebugSession;
    const next = active !== undefined && this.running.includes(active) ? active : this.running.at(-1);
    if (next !== this.shown) {
      this.shown = next;
      this.changed.fire(next);
    }
  }
}
