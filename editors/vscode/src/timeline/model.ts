/**
 * The timeline that is shown: which window of time, which marks, which page of the list, and what must be asked of the
 * adapter for them. Imports neither vscode nor the DOM; reads no clock.
 *
 * Invariants: one load is under way at a time, and what was asked for meanwhile is loaded once when it is done; what is
 * shown is one answer's, never a mixture of two filters or two sessions; memory is bounded whatever the session holds.
 */
import { DecodeError } from "../decode";
import { PAGE_HITS_MAX, parseOverview, parsePage, type Hit, type Overview, type Page } from "./data";
import { needsSearch, NO_FILTER, readFilter, type Filter, type FilterForm } from "./filter";
import { lanesOfCounts, lanesOfHits, type Lane, type Mark } from "./marks";
import { centre, fit, follow, pan, position, widthOf, zoom, type Span } from "./scale";

/** Up to so many hits are drawn one by one, each as wide as it is uncertain; above it they are counted. */
export const EXACT_HITS_MAX = 400;
/** Hits in the list: more are reached by its buttons. */
export const LIST_HITS = 100;
/** Hits that a search by text or value keeps, the newest ones. */
export const MATCHES_MAX = 2_000;
/** How many times one search is continued: the adapter looks at ten thousand hits each time, so at all that it holds. */
const SEARCH_REQUESTS_MAX = 100;
/** Pages for one window of `EXACT_HITS_MAX` hits; hits that came late are behind their neighbours. */
const EXACT_PAGES_MAX = 4;

export type Request = "timelinePage" | "timelineOverview";
export type Ask = (request: Request, args: object) => Promise<unknown>;

/** The adapter was asked for something else before it answered: what it said is of no use any more. */
class Outdated extends Error {}

export class Timeline {
  /** From the first hit to the newest one; undefined while there is none. */
  all: Span | undefined;
  window: Span | undefined;
  lanes: readonly Lane[] = [];
  /** Whether marks are single hits. */
  exact = true;
  /** Whether the window moves with the newest hit. */
  following = true;
  list: readonly Hit[] = [];
  form: FilterForm = NO_FILTER;
  /** The hit that the debugger shows. */
  open: number | undefined;
  counts = { arrived: 0, dropped: 0, evicted: 0 };
  oldest: number | undefined;
  newest: number | undefined;
  /** What kept the last load from its end. */
  problem: string | undefined;
  /** Whether a search has more matches than it keeps. */
  cut = false;

  private filter: Filter = {};
  /** The window is everything, however much that is. */
  private whole = true;
  private columns = 100;
  /** Where the list begins or ends; undefined: its end is the newest hit. */
  private held = false;
  private listAt: { readonly from: number } | { readonly before: number } | undefined;
  private matches: Hit[] = [];
  /** The search has looked at every hit before this number. */
  private searchedTo: number | undefined;
  private generation = 0;
  private loading: Promise<void> | undefined;
  private again = false;

  /** `changed` is called whenever there is something new to draw. */
  constructor(
    private readonly ask: Ask,
    private readonly changed: () => void,
  ) {}

  /** Another session, or none: nothing of the old one stays. */
  reset(): void {
    this.generation += 1;
    this.all = this.window = this.open = this.oldest = this.newest = this.problem = undefined;
    this.lanes = this.list = [];
    this.counts = { arrived: 0, dropped: 0, evicted: 0 };
    this.whole = this.following = true;
    this.held = false;
    this.listAt = undefined;
    this.forgetSearch();
    this.changed();
  }

  /** Asks for what is to be shown now. */
  load(): Promise<void> {
    if (this.loading !== undefined) {
      this.again = true;
      return this.loading;
    }
    this.loading = this.loadUntilCurrent().finally(() => {
      this.loading = undefined;
    });
    return this.loading;
  }

  /** `columns` is how many marks are told apart from left to right. */
  resize(columns: number): Promise<void> {
    const wanted = Math.max(1, Math.floor(columns));
    if (wanted === this.columns) {
      return Promise.resolve();
    }
    this.columns = wanted;
    return this.load();
  }

  setFilter(form: FilterForm): Promise<void> {
    this.form = form;
    const read = readFilter(form);
    if (read.kind === "problem") {
      this.problem = read.problem;
      this.changed();
      return Promise.resolve();
    }
    this.filter = read.filter;
    this.listAt = undefined;
    this.held = false;
    this.outdate();
    this.forgetSearch();
    return this.load();
  }

  zoomBy(factor: number, share = 0.5): Promise<void> {
    return this.move((window, all) => zoom(window, factor, this.following ? 1 : share, all));
  }

  panBy(share: number): Promise<void> {
    this.following = false;
    return this.move((window, all) => pan(window, share, all));
  }

  /** Shows a piece of time and as much beside it. */
  zoomTo(span: Span): Promise<void> {
    this.following = false;
    const margin = Math.max(widthOf(span), 1) / 2;
    return this.move(() => ({ fromNs: Math.floor(span.fromNs - margin), toNs: Math.ceil(span.toNs + margin) }));
  }

  showAll(): Promise<void> {
    this.whole = true;
    return this.load();
  }

  setFollowing(on: boolean): Promise<void> {
    if (on) {
      this.following = true;
      this.listAt = undefined;
    } else {
      this.stay();
    }
    return this.load();
  }

  /** Keeps window and list as they are while newer hits come: what is being looked at does not run away. */
  stay(): void {
    const first = this.list[0];
    this.following = false;
    if (this.listAt === undefined && first !== undefined) {
      this.listAt = { from: first.seq };
      // What is on its way was asked for without it, and would put other hits under the pointer.
      this.outdate();
    }
  }

  /** Keeps the list as it is as long as it is held, without looking elsewhere for good: a row under the pointer. */
  hold(on: boolean): void {
    if (on && !this.held) {
      this.outdate();
    }
    this.held = on;
  }

  /** Lists the hits from this one on. */
  listFrom(seq: number): Promise<void> {
    this.following = false;
    this.listAt = { from: seq };
    return this.load();
  }

  older(): Promise<void> {
    const first = this.list[0];
    this.following = false;
    this.listAt = first === undefined ? undefined : { before: first.seq };
    return this.load();
  }

  newer(): Promise<void> {
    const last = this.list.at(-1);
    this.listAt = last === undefined ? undefined : { from: last.seq + 1 };
    return this.load();
  }

  /** Lists the newest hits. */
  toNewest(): Promise<void> {
    this.listAt = undefined;
    this.held = false;
    return this.load();
  }

  get hasOlder(): boolean {
    const first = this.list[0];
    return first !== undefined && this.oldest !== undefined && first.seq > this.oldest;
  }

  get hasNewer(): boolean {
    const last = this.list.at(-1);
    return last !== undefined && this.newest !== undefined && last.seq < this.newest;
  }

  /** Brings a hit of the list into the window. */
  async centreOn(seq: number): Promise<void> {
    const hit = this.list.find((each) => each.seq === seq);
    const { window } = this;
    if (hit === undefined || window === undefined) {
      return;
    }
    const at = position(window, hit.atNs);
    if (at < 0 || at > 1) {
      this.following = false;
      await this.move((window, all) => centre(window, hit.atNs, all));
    }
  }

  /** The mark that stands for a hit. */
  markOf(seq: number): { lane: Lane; mark: Mark } | undefined {
    for (const lane of this.lanes) {
      const mark = lane.marks.find(({ holds }) => holds(seq));
      if (mark !== undefined) {
        return { lane, mark };
      }
    }
    return undefined;
  }

  private move(to: (window: Span, all: Span) => Span): Promise<void> {
    if (this.window === undefined || this.all === undefined) {
      return Promise.resolve();
    }
    this.window = to(this.window, this.all);
    this.whole = false;
    this.outdate();
    return this.load();
  }

  /** What is being loaded is not wanted any more. */
  private outdate(): void {
    this.generation += 1;
  }

  private async loadUntilCurrent(): Promise<void> {
    do {
      this.again = false;
      const generation = this.generation;
      try {
        await this.loadOnce(this.askerOf(generation));
        this.problem = undefined;
      } catch (error) {
        if (error instanceof Outdated) {
          this.again = true;
          continue;
        }
        const why = error instanceof Error ? error.message : String(error);
        this.problem =
          error instanceof DecodeError ? `${why}. Is the riptrace binary as new as the extension?` : why;
      }
      this.changed();
    } while (this.again);
  }

  /** Asks, and throws `Outdated` when something else was asked for before the answer came. */
  private askerOf(generation: number): Ask {
    return async (request, args) => {
      const answer = await this.ask(request, args);
      if (generation !== this.generation) {
        throw new Outdated();
      }
      return answer;
    };
  }

  private async loadOnce(ask: Ask): Promise<void> {
    const { filter } = this;
    const page = await this.listPage(ask, filter);
    const everything = parseOverview(await ask("timelineOverview", { buckets: 1 }));
    const all = page.newest === undefined ? undefined : { fromNs: everything.fromNs, toNs: everything.toNs };
    const window = all === undefined ? undefined : this.windowOver(all);
    const drawn = window === undefined ? { lanes: [], exact: true } : await this.draw(ask, window, filter);
    this.all = all;
    this.window = window;
    this.lanes = drawn.lanes;
    this.exact = drawn.exact;
    this.list = page.hits;
    this.open = page.open;
    this.oldest = page.oldest;
    this.newest = page.newest;
    this.counts = { arrived: page.arrived, dropped: page.dropped, evicted: page.evicted };
  }

  private windowOver(all: Span): Span {
    if (this.whole || this.window === undefined) {
      return fit(all);
    }
    return this.following ? follow(this.window, all) : this.window;
  }

  private async listPage(ask: Ask, filter: Filter): Promise<Page> {
    const first = this.list[0];
    const held = this.held && first !== undefined ? { from: first.seq } : undefined;
    const listAt = this.listAt ?? held;
    const found = await gather(ask, { ...listAt, filter }, LIST_HITS);
    if (found.hits.length > 0 || listAt === undefined) {
      return found;
    }
    // There is nothing on that side: the list stays where it was.
    this.held = false;
    this.listAt = "before" in listAt ? { from: this.oldest ?? 0 } : undefined;
    return gather(ask, { ...this.listAt, filter }, LIST_HITS);
  }

  private async draw(ask: Ask, window: Span, filter: Filter): Promise<{ lanes: readonly Lane[]; exact: boolean }> {
    const resolution = 1 / this.columns;
    if (needsSearch(filter)) {
      await this.search(ask, filter);
      return { lanes: lanesOfHits(this.matches, window, resolution), exact: true };
    }
    const span = { from_ns: window.fromNs, to_ns: window.toNs };
    const overview = parseOverview(await ask("timelineOverview", { ...span, buckets: this.columns, filter }));
    const total = overview.services.reduce((sum, { hits }) => sum + hits, 0);
    if (total > EXACT_HITS_MAX) {
      return { lanes: lanesOfCounts(overview), exact: false };
    }
    const hits = total === 0 ? [] : await hitsIn(ask, overview, window, total, filter);
    return { lanes: lanesOfHits(hits, window, resolution), exact: true };
  }

  /** Looks at the hits that have come since the last search. */
  private async search(ask: Ask, filter: Filter): Promise<void> {
    if (this.searchedTo === undefined) {
      const page = await gather(ask, { filter }, MATCHES_MAX);
      this.matches = [...page.hits];
      this.cut = page.previous !== undefined;
      this.searchedTo = (page.newest ?? 0) + 1;
      return;
    }
    const page = await gather(ask, { from: this.searchedTo, filter }, MATCHES_MAX);
    this.matches = [...this.matches, ...page.hits].slice(-MATCHES_MAX);
    this.cut ||= page.next !== undefined || this.matches.length === MATCHES_MAX;
    this.searchedTo = page.next ?? (page.newest ?? 0) + 1;
  }

  private forgetSearch(): void {
    this.matches = [];
    this.searchedTo = undefined;
    this.cut = false;
  }
}

interface PageQuery {
  readonly from?: number;
  readonly before?: number;
  readonly filter: Filter;
}

/** A page of `wanted` hits: a search that the adapter cut short is gone on with. */
async function gather(ask: Ask, query: PageQuery, wanted: number): Promise<Page> {
  let page = parsePage(await ask("timelinePage", { ...query, count: Math.min(wanted, PAGE_HITS_MAX) }));
  for (let requests = 1; requests < SEARCH_REQUESTS_MAX && page.hits.length < wanted; requests += 1) {
    const { next, previous, hits } = page;
    const on = next !== undefined ? { from: next } : previous !== undefined ? { before: previous } : undefined;
    if (on === undefined) {
      break;
    }
    const count = Math.min(wanted - hits.length, PAGE_HITS_MAX);
    const more = parsePage(await ask("timelinePage", { filter: query.filter, ...on, count }));
    page = { ...more, hits: next !== undefined ? [...hits, ...more.hits] : [...more.hits, ...hits] };
  }
  return page;
}

/** The hits of a window of which an overview says how many there are. */
async function hitsIn(ask: Ask, overview: Overview, window: Span, total: number, filter: Filter): Promise<Hit[]> {
  const firsts = overview.services.flatMap(({ first }) => first).filter((seq) => seq !== undefined);
  let from: number | undefined = Math.min(...firsts);
  const found: Hit[] = [];
  for (let pages = 0; from !== undefined && pages < EXACT_PAGES_MAX && found.length < total; pages += 1) {
    const page: Page = parsePage(await ask("timelinePage", { from, filter, count: PAGE_HITS_MAX }));
    found.push(...page.hits.filter(({ atNs }) => atNs >= window.fromNs && atNs < window.toNs));
    from = page.next;
  }
  return found;
}
