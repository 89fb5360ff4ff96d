/**
 * What is drawn in each lane: a mark for each hit, as wide as its time is uncertain, or for each piece of time when
 * there are too many hits to draw. Imports neither vscode nor the DOM.
 */
import { duration, number, plural } from "../words";
import type { Counts, Hit, Overview } from "./data";
import { position, sinceStart, widthOf, type Span } from "./scale";

export interface Lane {
  readonly service: string;
  /** Hits of this service in the window. */
  readonly hits: number;
  /** The greatest uncertainty of their times, in nanoseconds. */
  readonly uncertaintyNs: number;
  readonly marks: readonly Mark[];
}

export interface Mark {
  /** The number of its first hit: what is opened, or where its list begins. */
  readonly seq: number;
  readonly hits: number;
  /** From 0 to 1, of the window. */
  readonly left: number;
  readonly width: number;
  /** Where its first hit is, between `left` and `left + width`. */
  readonly centre: number;
  /** From 0 to 1: how many hits it stands for, beside the fullest mark. */
  readonly height: number;
  /** For a screen reader and as a tooltip. */
  readonly label: string;
  /** It holds a hit that came late or whose order against a neighbour is not certain. */
  readonly uncertain: boolean;
  readonly late: boolean;
  /** Whether it stands for the hit of this number. */
  readonly holds: (seq: number) => boolean;
  /** The piece of time that it stands for. */
  readonly span: Span;
}

/** Marks for single hits. Those that are nearer than `resolution` (a share of the window) are one mark. */
export function lanesOfHits(hits: readonly Hit[], window: Span, resolution: number): Lane[] {
  const services = new Map<string, Hit[]>();
  for (const hit of hits) {
    const at = position(window, hit.atNs);
    if (at >= 0 && at <= 1) {
      const known = services.get(hit.service) ?? [];
      known.push(hit);
      services.set(hit.service, known);
    }
  }
  return [...services.entries()]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([service, own]) => ({
      service,
      hits: own.length,
      uncertaintyNs: Math.max(...own.map(({ uncertaintyNs }) => uncertaintyNs)),
      marks: clusters(own, resolution * widthOf(window)).map((cluster) => markOfHits(cluster, window, resolution)),
    }));
}

/** Hits in the order of time, those nearer than `nearNs` to the first of their cluster together. */
function clusters(hits: readonly Hit[], nearNs: number): Hit[][] {
  const found: Hit[][] = [];
  for (const hit of [...hits].sort((a, b) => a.atNs - b.atNs || a.seq - b.seq)) {
    const last = found.at(-1);
    if (last?.[0] !== undefined && hit.atNs - last[0].atNs < nearNs) {
      last.push(hit);
    } else {
      found.push([hit]);
    }
  }
  return found;
}

function markOfHits(cluster: readonly Hit[], window: Span, resolution: number): Mark {
  const fromNs = Math.min(...cluster.map(({ atNs, uncertaintyNs }) => atNs - uncertaintyNs));
  const toNs = Math.max(...cluster.map(({ atNs, uncertaintyNs }) => atNs + uncertaintyNs));
  const seqs = new Set(cluster.map(({ seq }) => seq));
  const first = cluster.reduce((least, hit) => (hit.seq < least.seq ? hit : least));
  const centre = position(window, first.atNs);
  const left = Math.min(position(window, fromNs), centre - resolution / 2);
  const right = Math.max(position(window, toNs), centre + resolution / 2);
  return {
    seq: first.seq,
    hits: cluster.length,
    ...{ left, width: right - left, centre },
    height: 1,
    label: cluster.length === 1 ? hitText(first) : `${plural(cluster.length, "hit")} from ${hitText(first)}`,
    uncertain: cluster.some(({ undeterminedWith }) => undeterminedWith.length > 0),
    late: cluster.some(({ late }) => late),
    holds: (seq) => seqs.has(seq),
    span: { fromNs, toNs: Math.max(toNs, fromNs + 1) },
  };
}

/** A hit in one line: what, where, when and how uncertain. */
export function hitText(hit: Hit): string {
  const parts = [
    `Hit ${hit.seq}`,
    `${hit.service} on ${hit.host}`,
    ...(hit.goroutine === undefined ? [] : [`goroutine ${hit.goroutine}`]),
    `${clockTime(hit.time)} ±${duration(hit.uncertaintyNs)}`,
    ...(hit.durationNs === undefined ? [] : [`took ${duration(hit.durationNs)}`]),
    hit.label.trim(),
    ...(hit.undeterminedWith.length === 0 ? [] : [orderText(hit.undeterminedWith)]),
    ...(hit.late ? ["came late"] : []),
  ];
  return parts.filter((part) => part !== "").join(", ");
}

/** Neighbours that are named one by one; beyond that they are counted. */
const NEIGHBOURS_NAMED_MAX = 4;

function orderText(neighbours: readonly number[]): string {
  return neighbours.length <= NEIGHBOURS_NAMED_MAX
    ? `order against hit ${neighbours.join(", ")} not certain`
    : `order against ${neighbours.length} neighbours not certain`;
}

/** The time of day of an RFC 3339 time. */
export function clockTime(time: string): string {
  return /T([\d:.]+)/.exec(time)?.[1] ?? time;
}

/** Marks for pieces of time. */
export function lanesOfCounts(overview: Overview): Lane[] {
  const most = Math.max(1, ...overview.services.flatMap(({ counts }) => counts));
  return overview.services.map((lane) => ({
    service: lane.service,
    hits: lane.hits,
    uncertaintyNs: lane.uncertaintyNs,
    marks: lane.counts.flatMap((_, index) => markOfCount(lane, index, overview, most)),
  }));
}

function markOfCount(lane: Counts, index: number, overview: Overview, most: number): Mark[] {
  const hits = lane.counts[index] ?? 0;
  const seq = lane.first[index];
  if (hits === 0 || seq === undefined) {
    return [];
  }
  const pieces = lane.counts.length;
  const pieceNs = widthOf(overview) / pieces;
  const fromNs = overview.fromNs + index * pieceNs;
  return [
    {
      seq,
      hits,
      left: index / pieces,
      width: 1 / pieces,
      centre: (index + 0.5) / pieces,
      // By the order of magnitude: one hit is still seen beside a thousand.
      height: Math.log1p(hits) / Math.log1p(most),
      label: `${plural(hits, "hit")} of ${lane.service} from hit ${number(seq)}, ${sinceStart(fromNs, pieceNs)}`,
      uncertain: false,
      late: false,
      holds: (wanted) => wanted === seq,
      span: { fromNs, toNs: fromNs + pieceNs },
    },
  ];
}

/** Which mark is the nearest in time to a place in another lane. */
export function nearest(marks: readonly Mark[], centre: number): number {
  let best = -1;
  marks.forEach((mark, index) => {
    const known = marks[best];
    if (known === undefined || Math.abs(mark.centre - centre) < Math.abs(known.centre - centre)) {
      best = index;
    }
  });
  return best;
}
