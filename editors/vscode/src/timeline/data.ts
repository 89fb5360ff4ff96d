/**
 * What the adapter answers to `riptrace/timelinePage` and `riptrace/timelineOverview`. Imports neither vscode nor the DOM.
 */
import { count, DecodeError, fields, flag, list, optional, quantity, text } from "../decode";

/** Hits in one page, at most: the adapter's own limit. */
export const PAGE_HITS_MAX = 500;
/** Pieces of time in one overview, at most: the adapter's own limit. */
export const BUCKETS_MAX = 4096;
/** More services than this are no lanes that a person reads. */
const SERVICES_MAX = 1_000;
/** Hits that one hit names whose order against it is not certain. */
const UNDETERMINED_MAX = 10_000;

/** One hit as a row. Times are nanoseconds since the first hit of the session. */
export interface Hit {
  readonly seq: number;
  /** RFC 3339 with nanoseconds. */
  readonly time: string;
  readonly atNs: number;
  readonly uncertaintyNs: number;
  readonly host: string;
  readonly service: string;
  readonly pid: number;
  readonly thread: number | undefined;
  readonly goroutine: number | undefined;
  readonly function: string | undefined;
  readonly file: string | undefined;
  readonly line: number | undefined;
  readonly label: string;
  /** Numbers of the neighbours against which its order is not certain. */
  readonly undeterminedWith: readonly number[];
  /** It came after its place in the order had been shown. */
  readonly late: boolean;
  /** Of the call that returns here. */
  readonly durationNs: number | undefined;
}

export interface Page {
  readonly hits: readonly Hit[];
  /** Where newer and older hits go on; undefined where there are none. */
  readonly next: number | undefined;
  readonly previous: number | undefined;
  /** Numbers of the oldest and the newest hit that are kept. */
  readonly oldest: number | undefined;
  readonly newest: number | undefined;
  /** The hit that the debugger shows. */
  readonly open: number | undefined;
  readonly arrived: number;
  readonly evicted: number;
  readonly dropped: number;
}

/** How many hits each service has in each of equal pieces of time. */
export interface Overview {
  readonly fromNs: number;
  readonly toNs: number;
  readonly services: readonly Counts[];
}

export interface Counts {
  readonly service: string;
  readonly hits: number;
  /** One entry for each piece. */
  readonly counts: readonly number[];
  /** The number of the first hit of each piece; undefined where it has none. */
  readonly first: readonly (number | undefined)[];
  /** The greatest of its hits. */
  readonly uncertaintyNs: number;
}

/** Throws DecodeError. */
export function parsePage(value: unknown): Page {
  const page = fields(value, "page");
  return {
    hits: list(page["hits"], "hits", PAGE_HITS_MAX, parseHit),
    next: optional(page["next"], "next", count),
    previous: optional(page["previous"], "previous", count),
    oldest: optional(page["oldest"], "oldest", count),
    newest: optional(page["newest"], "newest", count),
    open: optional(page["open"], "open", count),
    arrived: count(page["arrived"], "arrived"),
    evicted: count(page["evicted"], "evicted"),
    dropped: count(page["dropped"], "dropped"),
  };
}

function parseHit(value: unknown, place: string): Hit {
  const hit = fields(value, place);
  return {
    seq: count(hit["seq"], `${place}.seq`),
    time: text(hit["time"], `${place}.time`),
    atNs: quantity(hit["at_ns"], `${place}.at_ns`),
    uncertaintyNs: count(hit["uncertainty_ns"], `${place}.uncertainty_ns`),
    host: text(hit["host"], `${place}.host`),
    service: text(hit["service"], `${place}.service`),
    pid: count(hit["pid"], `${place}.pid`),
    thread: optional(hit["thread"], `${place}.thread`, count),
    goroutine: optional(hit["goroutine"], `${place}.goroutine`, count),
    function: optional(hit["function"], `${place}.function`, text),
    file: optional(hit["file"], `${place}.file`, text),
    line: optional(hit["line"], `${place}.line`, count),
    label: text(hit["label"], `${place}.label`),
    undeterminedWith: list(hit["undetermined_with"], `${place}.undetermined_with`, UNDETERMINED_MAX, count),
    late: optional(hit["late"], `${place}.late`, flag) ?? false,
    durationNs: optional(hit["duration_ns"], `${place}.duration_ns`, count),
  };
}

/** Throws DecodeError. */
export function parseOverview(value: unknown): Overview {
  const overview = fields(value, "overview");
  const fromNs = quantity(overview["from_ns"], "from_ns");
  const toNs = quantity(overview["to_ns"], "to_ns");
  const buckets = count(overview["buckets"], "buckets");
  const services = list(overview["services"], "services", SERVICES_MAX, (value, place) => {
    const lane = fields(value, place);
    const counts = list(lane["counts"], `${place}.counts`, BUCKETS_MAX, count);
    const first = list(lane["first"], `${place}.first`, BUCKETS_MAX, (entry, at) => optional(entry, at, count));
    if (counts.length !== buckets || first.length !== buckets) {
      throw new DecodeError(`${place} has ${counts.length} and ${first.length} pieces instead of ${buckets}`);
    }
    return {
      service: text(lane["service"], `${place}.service`),
      hits: count(lane["hits"], `${place}.hits`),
      counts,
      first,
      uncertaintyNs: count(lane["uncertainty_ns"], `${place}.uncertainty_ns`),
    };
  });
  return { fromNs, toNs, services };
}
