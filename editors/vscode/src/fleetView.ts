/**
 * The Fleet view: asks for the fleet while it is looked at, and shows what fleetTree.ts makes of it.
 *
 * With a session it asks the session's adapter, else `riptrace ps`. A fleet that does not answer is said to be so, and
 * nothing old is shown in its place.
 */
import * as vscode from "vscode";
import { DecodeError } from "./decode";
import { readFleet, type FleetLook, type FleetQuery } from "./fleet";
import { parseFleet } from "./fleetModel";
import { adviceNodes, fleetTree, type FleetNode } from "./fleetTree";
import { Rates } from "./rates";
import type { Sessions } from "./sessions";

export const FLEET_VIEW = "riptrace.fleet";

/** How often a fleet is looked at while the view is visible: an answer of the adapter is cheap, `ps` is a process. */
const SESSION_REFRESH_MS = 5_000;
const PS_REFRESH_MS = 10_000;

/** The adapter says with it that the fleet is to be looked at again: as long as there are hits, twice a second. */
const CHANGED_EVENT = "riptrace/fleetChanged";
/** Then it is looked at after this time: a tree that is drawn more often cannot be read, let alone clicked on. */
const CHANGED_REFRESH_MS = 1_500;

/** The context key that chooses among the view's welcome texts. */
const STATE_KEY = "riptrace.fleetState";

export class FleetView implements vscode.TreeDataProvider<FleetNode>, vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<void>();
  private readonly view: vscode.TreeView<FleetNode>;
  private readonly subscriptions: vscode.Disposable;
  private readonly rates = new Rates();
  private nodes: readonly FleetNode[] = [];
  private shown = "";
  private timer: NodeJS.Timeout | undefined;
  /** When the timer ends, by the clock that never runs backwards. */
  private dueMs = Infinity;
  /** The look that is under way. */
  private looking: Promise<void> | undefined;

  readonly onDidChangeTreeData = this.changed.event;

  /** `query` says which fleet to ask without a session, or why none can be asked. */
  constructor(
    private readonly sessions: Sessions,
    private readonly query: () => FleetQuery | { readonly missing: string },
    private readonly log: vscode.LogOutputChannel,
  ) {
    this.view = vscode.window.createTreeView(FLEET_VIEW, { treeDataProvider: this, showCollapseAll: true });
    this.subscriptions = vscode.Disposable.from(
      this.changed,
      this.view,
      this.view.onDidChangeVisibility(({ visible }) => {
        if (visible) {
          void this.refresh();
        }
      }),
      this.sessions.onDidChange(() => void this.refresh()),
      vscode.debug.onDidReceiveDebugSessionCustomEvent(({ session, event }) => {
        if (session === this.sessions.current && event === CHANGED_EVENT) {
          this.schedule(CHANGED_REFRESH_MS);
        }
      }),
    );
    void this.refresh();
  }

  dispose(): void {
    clearTimeout(this.timer);
    this.subscriptions.dispose();
  }

  getChildren(node?: FleetNode): FleetNode[] {
    return [...(node?.children ?? this.nodes)];
  }

  getTreeItem(node: FleetNode): vscode.TreeItem {
    const { Collapsed, Expanded, None } = vscode.TreeItemCollapsibleState;
    const item = new vscode.TreeItem(node.label, node.children.length === 0 ? None : node.open ? Expanded : Collapsed);
    item.id = node.id;
    item.description = node.description;
    item.tooltip = node.tooltip;
    item.contextValue = [
      node.kind,
      ...(node.selector === undefined ? [] : ["selectable"]),
      ...(node.own ? ["own"] : []),
    ].join(".");
    item.iconPath = new vscode.ThemeIcon(
      node.icon.name,
      node.icon.color === undefined ? undefined : new vscode.ThemeColor(node.icon.color),
    );
    item.accessibilityInformation = {
      label: node.command === undefined ? `${node.kind} ${node.label}, ${node.description}` : node.label,
    };
    if (node.command !== undefined) {
      item.command = { command: node.command.id, title: node.label, arguments: [...node.command.arguments] };
    } else if (node.source !== undefined) {
      item.command = { command: "riptrace.openSource", title: "Open source", arguments: [node] };
    }
    return item;
  }

  async reveal(): Promise<void> {
    await vscode.commands.executeCommand(`${FLEET_VIEW}.focus`);
  }

  /** Looks at the fleet now; while a look is under way, that one counts. */
  refresh(): Promise<void> {
    clearTimeout(this.timer);
    this.dueMs = Infinity;
    this.looking ??= this.look().finally(() => {
      this.looking = undefined;
      this.schedule(this.sessions.current === undefined ? PS_REFRESH_MS : SESSION_REFRESH_MS);
    });
    return this.looking;
  }

  /** Looks again after this time, or as soon as was planned if that is earlier. */
  private schedule(pauseMs: number): void {
    const dueMs = performance.now() + pauseMs;
    if (!this.view.visible || this.looking !== undefined || this.dueMs <= dueMs) {
      return;
    }
    clearTimeout(this.timer);
    this.dueMs = dueMs;
    this.timer = setTimeout(() => void this.refresh(), pauseMs);
  }

  private async look(): Promise<void> {
    if (!this.view.visible) {
      return;
    }
    const session = this.sessions.current;
    const found = session === undefined ? await this.askPs() : await askAdapter(session);
    const problem = found.kind === "fleet" ? undefined : found.problem;
    if (found.kind === "fleet") {
      this.rates.look(found.fleet, performance.now());
      this.nodes = fleetTree(found.fleet, this.rates);
    } else {
      this.nodes = adviceNodes(found.kind);
    }
    this.view.message = problem ?? "";
    await vscode.commands.executeCommand("setContext", STATE_KEY, found.kind);
    // Drawn anew only when there is something new: a tree that is drawn takes the user's hover away.
    const shown = JSON.stringify([problem, this.nodes]);
    if (shown !== this.shown) {
      this.shown = shown;
      this.changed.fire();
      if (problem !== undefined) {
        this.log.warn(problem);
      }
    }
  }

  private async askPs(): Promise<FleetLook> {
    const query = this.query();
    return "missing" in query ? { kind: "missing", problem: query.missing } : readFleet(query);
  }
}

async function askAdapter(session: vscode.DebugSession): Promise<FleetLook> {
  try {
    return { kind: "fleet", fleet: parseFleet(await session.customRequest("riptrace/fleet")) };
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    const advice = error instanceof DecodeError ? " Is the binary as new as this extension?" : "";
    return { kind: "problem", problem: `RipTrace: the fleet of "${session.name}" cannot be shown: ${why}.${advice}` };
  }
}
