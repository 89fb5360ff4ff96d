/**
 * A session's hits, answered as the adapter does (DAP.md): what the timeline's tests ask.
 */
import type { Request } from "../src/timeline/model";

export interface FakeHit {
  readonly seq: number;
  readonly at_ns: number;
  readonly service: string;
  readonly [name: string]: unknown;
}

interface Filter {
  readonly service?: string;
  readonly text?: string;
  readonly when?: string;
}

/** Hits that a search looks at before it says where to go on. */
const SEARCH_MAX = 1_000;

export class FakeAdapter {
  readonly asked: { request: Request; args: Record<string, unknown> }[] = [];
  hits: FakeHit[] = [];
  open: number | null = null;
  /** What every request is refused with. */
  refusal: string | undefined;
  /** Answers wait for it. */
  gate: Promise<void> = Promise.resolve();

  add(service: string, atNs: number, given: object = {}): this {
    const seq = (this.hits.at(-1)?.seq ?? 0) + 1;
    this.hits.push({
      ...{ seq, service, at_ns: atNs, uncertainty_ns: 1_000, time: `2026-11-23T10:00:00.${String(seq).padStart(9, "0")}Z` },
      ...{ host: "web-1", pid: 812, thread: 815, goroutine: 34, function: "cart.Add", file: "/c/cart.go", line: 42 },
      ...{ label: `qty=${seq}`, undetermined_with: [], late: false, duration_ns: null, ...given },
    });
    return this;
  }

  readonly ask = async (request: Request, args: object): Promise<unknown> => {
    this.asked.push({ request, args: args as Record<string, unknown> });
    await this.gate;
    if (this.refusal !== undefined) {
      throw new Error(this.refusal);
    }
    // As over the wire.
    return JSON.parse(JSON.stringify(request === "timelinePage" ? this.page(args) : this.overview(args))) as unknown;
  };

  private page({ from, before, count = 500, filter = {} }: { from?: number; before?: number; count?: number; filter?: Filter }): object {
    const found: FakeHit[] = [];
    let cut: number | undefined;
    let looked = 0;
    const forward = from !== undefined;
    const inOrder = forward ? this.hits.filter(({ seq }) => seq >= from) : this.hits.filter(({ seq }) => seq < (before ?? Infinity)).reverse();
    for (const hit of inOrder) {
      if (found.length === count || looked === SEARCH_MAX) {
        cut = forward ? hit.seq : hit.seq + 1;
        break;
      }
      looked += filter.text === undefined ? 0 : 1;
      if (fits(hit, filter)) {
        found.push(hit);
      }
    }
    return {
      hits: forward ? found : found.reverse(),
      next: forward ? cut : null,
      previous: forward ? null : cut,
      ...{ oldest: this.hits[0]?.seq ?? null, newest: this.hits.at(-1)?.seq ?? null, open: this.open },
      ...{ kept: this.hits.length, arrived: this.hits.length, evicted: 0, dropped: 3 },
    };
  }

  private overview(args: { from_ns?: number; to_ns?: number; buckets?: number; filter?: Filter }): object {
    const { buckets = 200, filter = {} } = args;
    if (filter.text !== undefined) {
      throw new Error("an overview is by origin only");
    }
    const times = this.hits.map(({ at_ns }) => at_ns);
    const from = args.from_ns ?? Math.min(...times, 0);
    const to = args.to_ns ?? Math.max(...times, 0) + 1;
    const lanes = new Map<string, { counts: number[]; first: (number | null)[] }>();
    for (const hit of this.hits.filter(({ at_ns }) => at_ns >= from && at_ns < to)) {
      if (!fits(hit, filter)) {
        continue;
      }
      const lane = lanes.get(hit.service) ?? { counts: Array<number>(buckets).fill(0), first: Array<null>(buckets).fill(null) };
      const bucket = Math.floor(((hit.at_ns - from) / (to - from)) * buckets);
      lane.counts[bucket] = (lane.counts[bucket] ?? 0) + 1;
      lane.first[bucket] ??= hit.seq;
      lanes.set(hit.service, lane);
    }
    const services = [...lanes].sort().map(([service, { counts, first }]) => {
      const hits = counts.reduce((sum, n) => sum + n, 0);
      return { service, hits, counts, first, uncertainty_ns: 1_000 };
    });
    return { origin: null, from_ns: from, to_ns: to, buckets, services };
  }
}

function fits(hit: FakeHit, filter: Filter): boolean {
  const service = filter.service?.replaceAll("*", "");
  return (service === undefined || hit.service.includes(service)) && (filter.text === undefined || String(hit["label"]).includes(filter.text));
}
