/**
 * The status bar item: without a session the way to the fleet, with one its hits and drops.
 */
import * as vscode from "vscode";
import type { Sessions } from "./sessions";
import { parseStatistics, STATISTICS_EVENT, statusText, statusTooltip } from "./statistics";

/** `commands` are what a click does with and without a session. */
export function registerStatusBar(
  sessions: Sessions,
  commands: { readonly session: string; readonly none: string },
): vscode.Disposable {
  const item = vscode.window.createStatusBarItem("riptrace.hits", vscode.StatusBarAlignment.Left);
  item.name = "RipTrace hits";
  const update = (body?: unknown): void => {
    const session = sessions.current;
    const statistics = parseStatistics(body);
    item.command = session === undefined ? commands.none : commands.session;
    if (session === undefined) {
      item.text = "$(pulse) RipTrace";
      item.tooltip = "No RipTrace session is running. Click to choose what to trace.";
    } else {
      item.text = statistics === undefined ? "$(pulse) RipTrace: no hits yet" : statusText(statistics);
      item.tooltip = statistics === undefined ? session.name : statusTooltip(statistics);
    }
    item.backgroundColor =
      statistics !== undefined && statistics.dropped > 0
        ? new vscode.ThemeColor("statusBarItem.warningBackground")
        : undefined;
    item.show();
  };
  update();
  return vscode.Disposable.from(
    item,
    sessions.onDidChange(() => update()),
    vscode.debug.onDidReceiveDebugSessionCustomEvent(({ session, event, body }) => {
      // A wrong count is never shown.
      if (session === sessions.current && event === STATISTICS_EVENT && parseStatistics(body) !== undefined) {
        update(body);
      }
    }),
  );
}
