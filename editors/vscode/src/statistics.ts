/**
 * The adapter's custom event `riptrace/statistics` and the status bar item that shows it. Does not import vscode.
 */

import { plural } from "./words";

export const STATISTICS_EVENT = "riptrace/statistics";

/** Counts of one session since it began. */
export interface Statistics {
  readonly hits: number;
  /** Hits that were not captured or not kept. */
  readonly dropped: number;
  /** Hosts and processes that match the session's selector now. */
  readonly hosts: number;
  readonly processes: number;
}

/** The event's body, or undefined when it is not one: a wrong count is never shown. */
export function parseStatistics(body: unknown): Statistics | undefined {
  if (typeof body !== "object" || body === null) {
    return undefined;
  }
  const { hits, dropped, hosts, processes } = body as Record<string, unknown>;
  if (!isCount(hits) || !isCount(dropped) || !isCount(hosts) || !isCount(processes)) {
    return undefined;
  }
  return { hits, dropped, hosts, processes };
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 0;
}

/** Text of the status bar item. Dropped hits are always named: silence would say that there are none. */
export function statusText(statistics: Statistics): string {
  const dropped = statistics.dropped > 0 ? ` $(warning) ${statistics.dropped} dropped` : "";
  return `$(pulse) ${plural(statistics.hits, "hit")}${dropped}`;
}

export function statusTooltip(statistics: Statistics): string {
  const lines = [
    `RipTrace: ${plural(statistics.hits, "hit")} from ${plural(statistics.processes, "process", "processes")} on ${plural(statistics.hosts, "host")}.`,
  ];
  if (statistics.dropped > 0) {
    lines.push(`${plural(statistics.dropped, "hit")} dropped: the Debug Console says where and why.`);
  }
  lines.push("Click to show the fleet.");
  return lines.join("\n");
}
