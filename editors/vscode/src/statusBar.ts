/**
 * The status bar item with the hit count: shown from a session's first `riptrace/statistics` event to its end.
 */
import * as vscode from "vscode";
import { DEBUG_TYPE } from "./configuration";
import { parseStatistics, STATISTICS_EVENT, statusText, statusTooltip } from "./statistics";

export function registerStatusBar(command: string): vscode.Disposable {
  const item = vscode.window.createStatusBarItem("riptrace.hits", vscode.StatusBarAlignment.Left);
  item.name = "RipTrace hits";
  item.command = command;
  /** Which session the item speaks of: the last one that reported. */
  let shown: vscode.DebugSession | undefined;
  return vscode.Disposable.from(
    item,
    vscode.debug.onDidReceiveDebugSessionCustomEvent(({ session, event, body }) => {
      if (session.type !== DEBUG_TYPE || event !== STATISTICS_EVENT) {
        return;
      }
      const statistics = parseStatistics(body);
      if (statistics === undefined) {
        return;
      }
      shown = session;
      item.text = statusText(statistics);
      item.tooltip = statusTooltip(statistics);
      item.show();
    }),
    vscode.debug.onDidTerminateDebugSession((session) => {
      if (session === shown) {
        shown = undefined;
        item.hide();
      }
    }),
  );
}
