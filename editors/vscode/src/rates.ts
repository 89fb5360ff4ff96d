/**
 * Hits per second of each probe, from the counts of one look at the fleet to the next. Does not import vscode.
 *
 * The clock is the caller's: times are milliseconds that never run backwards.
 */
import type { Fleet, Probe } from "./fleetModel";

/** Looks that are nearer than this say nothing of a rate: agents report their counts about once a second. */
const SPAN_MS_MIN = 900;

interface Look {
  readonly atMs: number;
  readonly hits: number;
  readonly rate: number | undefined;
}

export class Rates {
  private looks = new Map<string, Look>();

  /** Takes in what the fleet says now. What is gone from it is forgotten. */
  look(fleet: Fleet, nowMs: number): void {
    const next = new Map<string, Look>();
    for (const tracepoint of fleet.tracepoints) {
      for (const probe of tracepoint.probes) {
        const key = keyOf(tracepoint.id, probe);
        next.set(key, advance(this.looks.get(key), probe.hits, nowMs));
      }
    }
    this.looks = next;
  }

  /** Hits per second: as the answer says, else between two looks; undefined before the second one. */
  of(tracepoint: string, probe: Probe): number | undefined {
    return probe.hitsPerS ?? this.looks.get(keyOf(tracepoint, probe))?.rate;
  }

  /** Of all its probes together; undefined while none has a rate. */
  ofAll(tracepoint: string, probes: readonly Probe[]): number | undefined {
    const rates = probes.map((probe) => this.of(tracepoint, probe)).filter((rate) => rate !== undefined);
    return rates.length === 0 ? undefined : rates.reduce((sum, rate) => sum + rate, 0);
  }
}

function advance(last: Look | undefined, hits: number, nowMs: number): Look {
  // Counts that fall are those of a probe that was armed anew.
  if (last === undefined || hits < last.hits) {
    return { atMs: nowMs, hits, rate: undefined };
  }
  const spanMs = nowMs - last.atMs;
  return spanMs < SPAN_MS_MIN ? last : { atMs: nowMs, hits, rate: ((hits - last.hits) * 1000) / spanMs };
}

function keyOf(tracepoint: string, probe: Probe): string {
  return `${tracepoint}\n${probe.host}\n${probe.pid}`;
}

/** `0/s`, `0.4/s`, `12/s`, `1,200/s`. */
export function rateText(rate: number): string {
  const shown = rate > 0 && rate < 10 ? rate.toFixed(1).replace(/\.0$/, "") : Math.round(rate).toLocaleString("en-US");
  return `${shown}/s`;
}
