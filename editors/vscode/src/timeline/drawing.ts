/**
 * Draws the timeline into its page. Elements are used again, so that the focus stays where it is; styles are set one by
 * one, which the page's content policy allows, never as text.
 */
import { duration, number, plural } from "../words";
import type { Hit } from "./data";
import { clockTime, hitText, type Lane, type Mark } from "./marks";
import type { Timeline } from "./model";
import { ticks } from "./scale";

/** Colours of the theme that are told apart; services take them in turn. */
const COLOURS = 6;
const TICKS_MAX = 8;

/** An element of page.ts. */
export function element(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (found === null) {
    throw new Error(`the page has no element '${id}'`);
  }
  return found;
}

/** `focused` is the hit whose mark takes part in the order of the Tab key. */
export function drawLanes(timeline: Timeline, focused: number | undefined): void {
  const lanes = element("lanes");
  const had = document.activeElement instanceof HTMLElement && lanes.contains(document.activeElement);
  const tabbed = tabStop(timeline, focused);
  const rows = fill(lanes, timeline.lanes.length, () => {
    const row = make("div", "lane");
    row.append(make("div", "service"), make("div", "track"));
    return row;
  });
  timeline.lanes.forEach((lane, index) => drawLane(rows[index] as HTMLElement, lane, index, timeline, tabbed));
  const stop = lanes.querySelector<HTMLElement>('.mark[tabindex="0"]');
  if (had && stop !== null && document.activeElement !== stop) {
    stop.focus();
  }
}

/** The one mark that the Tab key goes to. */
function tabStop(timeline: Timeline, focused: number | undefined): Mark | undefined {
  const wanted = [focused, timeline.open].filter((seq) => seq !== undefined);
  const known = wanted.map((seq) => timeline.markOf(seq)?.mark).find((mark) => mark !== undefined);
  return known ?? timeline.lanes[0]?.marks[0];
}

/** What each mark's element was last drawn as. */
const drawnAs = new WeakMap<HTMLElement, string>();

function drawLane(row: HTMLElement, lane: Lane, laneIndex: number, timeline: Timeline, tabbed: Mark | undefined): void {
  const [name, track] = row.children as unknown as [HTMLElement, HTMLElement];
  setText(name, lane.service);
  name.title = `${plural(lane.hits, "hit")} in this window, times known to ±${duration(lane.uncertaintyNs)}`;
  row.dataset["colour"] = String(laneIndex % COLOURS);
  track.setAttribute("role", "listbox");
  track.setAttribute("aria-orientation", "horizontal");
  track.setAttribute("aria-label", `${lane.service}: ${name.title}`);
  const marks = fill(track, lane.marks.length, () => {
    const drawn = make("div", "mark");
    drawn.setAttribute("role", "option");
    return drawn;
  });
  lane.marks.forEach((mark, index) => {
    const drawn = marks[index] as HTMLElement;
    const isOpen = timeline.open !== undefined && mark.holds(timeline.open);
    const state = JSON.stringify([
      [laneIndex, index, mark.seq, mark.label, isOpen, timeline.exact, mark.uncertain, mark.late, mark === tabbed],
      [mark.left, mark.width, mark.centre, mark.height],
    ]);
    // Most marks stay what they are while hits arrive, and each that is set anew is laid out anew.
    if (drawnAs.get(drawn) === state) {
      return;
    }
    drawnAs.set(drawn, state);
    drawn.dataset["lane"] = String(laneIndex);
    drawn.dataset["index"] = String(index);
    drawn.dataset["seq"] = String(mark.seq);
    drawn.classList.toggle("open", isOpen);
    drawn.classList.toggle("exact", timeline.exact);
    drawn.classList.toggle("uncertain", mark.uncertain);
    drawn.classList.toggle("late", mark.late);
    drawn.setAttribute("aria-selected", String(isOpen));
    drawn.setAttribute("aria-label", mark.label);
    drawn.title = mark.label;
    drawn.tabIndex = mark === tabbed ? 0 : -1;
    drawn.style.setProperty("--left", percent(mark.left));
    drawn.style.setProperty("--width", percent(mark.width));
    drawn.style.setProperty("--centre", percent(mark.width === 0 ? 0 : (mark.centre - mark.left) / mark.width));
    drawn.style.setProperty("--height", percent(mark.height));
  });
}

export function drawAxis({ window }: Timeline): void {
  const axis = element("axis");
  const marks = window === undefined ? [] : ticks(window, TICKS_MAX);
  const drawn = fill(axis, marks.length, () => make("span", "tick"));
  marks.forEach(({ at, text }, index) => {
    const tick = drawn[index] as HTMLElement;
    setText(tick, text);
    tick.style.setProperty("--left", percent(at));
  });
}

/** `focused` is the hit whose row takes part in the order of the Tab key. */
export function drawList(timeline: Timeline, focused: number | undefined): void {
  const list = element("list");
  const had = document.activeElement instanceof HTMLElement && list.contains(document.activeElement);
  const seqs = timeline.list.map(({ seq }) => seq);
  const tabbed = [focused, timeline.open].find((seq) => seq !== undefined && seqs.includes(seq)) ?? seqs[0];
  const atEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 4;
  const rows = fill(list, timeline.list.length, () => {
    const row = make("div", "hit");
    row.setAttribute("role", "option");
    row.append(...["seq", "time", "service", "host", "goroutine", "label", "notes"].map((name) => make("span", name)));
    return row;
  });
  timeline.list.forEach((hit, index) => drawRow(rows[index] as HTMLElement, hit, timeline.open, hit.seq === tabbed));
  const stop = rows.find((row) => row.tabIndex === 0);
  if (had && stop !== undefined && document.activeElement !== stop) {
    stop.focus();
  } else if (timeline.following && !had && atEnd) {
    list.scrollTop = list.scrollHeight;
  }
  const [first, last] = [timeline.list[0], timeline.list.at(-1)];
  const title =
    first === undefined || last === undefined ? "No hits" : `Hits ${number(first.seq)} to ${number(last.seq)}`;
  setText(element("list-title"), title);
  (element("older") as HTMLButtonElement).disabled = !timeline.hasOlder;
  (element("newer") as HTMLButtonElement).disabled = !timeline.hasNewer;
}

function drawRow(row: HTMLElement, hit: Hit, open: number | undefined, tabbed: boolean): void {
  const isOpen = hit.seq === open;
  row.dataset["seq"] = String(hit.seq);
  row.classList.toggle("open", isOpen);
  row.setAttribute("aria-selected", String(isOpen));
  row.setAttribute("aria-label", hitText(hit));
  row.title = [hit.function, hit.file === undefined ? undefined : `${hit.file}:${hit.line}`, hit.time]
    .filter((part) => part !== undefined)
    .join("\n");
  row.tabIndex = tabbed ? 0 : -1;
  const notes = [
    ...(hit.durationNs === undefined ? [] : [`took ${duration(hit.durationNs)}`]),
    ...(hit.undeterminedWith.length === 0 ? [] : [`≈ ${hit.undeterminedWith.slice(0, 4).join(", ")}`]),
    ...(hit.late ? ["late"] : []),
  ];
  const texts = [
    String(hit.seq),
    `${clockTime(hit.time)} ±${duration(hit.uncertaintyNs)}`,
    hit.service,
    hit.host,
    hit.goroutine === undefined ? "" : `g${hit.goroutine}`,
    hit.label.trim(),
    notes.join(" "),
  ];
  texts.forEach((text, index) => setText(row.children[index] as HTMLElement, text));
}

export function drawStatus(timeline: Timeline): void {
  const { arrived, dropped, evicted } = timeline.counts;
  const parts = [
    plural(arrived, "hit"),
    ...(dropped === 0 ? [] : [`${number(dropped)} dropped`]),
    ...(evicted === 0 ? [] : [`${number(evicted)} older ones not kept`]),
    ...(timeline.cut ? ["the newest matches only"] : []),
    ...(timeline.exact ? [] : ["counted: zoom in for single hits"]),
  ];
  setText(element("status"), parts.join(", "));
  element("follow").setAttribute("aria-pressed", String(timeline.following));
  const problem = element("problem");
  problem.hidden = timeline.problem === undefined;
  setText(problem, timeline.problem ?? "");
}

/** Makes the element have so many children; those that are there are used again. */
function fill(parent: HTMLElement, count: number, create: () => HTMLElement): HTMLElement[] {
  while (parent.childElementCount > count) {
    parent.lastElementChild?.remove();
  }
  while (parent.childElementCount < count) {
    parent.append(create());
  }
  return [...parent.children] as HTMLElement[];
}

function make(tag: "div" | "span", name: string): HTMLElement {
  const made = document.createElement(tag);
  made.className = name;
  return made;
}

/** A text that is set again although it is the same would be read aloud again. */
function setText(target: HTMLElement, text: string): void {
  if (target.textContent !== text) {
    target.textContent = text;
  }
}

function percent(share: number): string {
  return `${(share * 100).toFixed(4)}%`;
}
