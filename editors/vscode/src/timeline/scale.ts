/**
 * Time on the screen: the window that is shown, zoom and pan, and the ticks of the axis. Imports neither vscode nor the
 * DOM. Times are nanoseconds since the first hit of the session.
 */

/** A piece of time; `toNs` is greater than `fromNs`. */
export interface Span {
  readonly fromNs: number;
  readonly toNs: number;
}

/** Nearer than this nothing is to be seen: clocks are not that exact. */
export const WINDOW_NS_MIN = 1_000;
/** What is left free at either side when everything is shown, as a share of the whole. */
const MARGIN = 0.02;

export function widthOf(span: Span): number {
  return span.toNs - span.fromNs;
}

/** Where a time is, from 0 at the left end to 1 at the right one; outside of that when it is not in the window. */
export function position(window: Span, atNs: number): number {
  return (atNs - window.fromNs) / widthOf(window);
}

export function timeAt(window: Span, share: number): number {
  return window.fromNs + share * widthOf(window);
}

/** A window with everything in it, and a little more. */
export function fit(all: Span): Span {
  const margin = Math.max(widthOf(all), WINDOW_NS_MIN) * MARGIN;
  return { fromNs: Math.floor(all.fromNs - margin), toNs: Math.ceil(all.toNs + margin) };
}

/** Makes the window `factor` times as wide; what is at `share` stays where it is. Never wider than everything. */
export function zoom(window: Span, factor: number, share: number, all: Span): Span {
  const whole = fit(all);
  const width = Math.min(Math.max(widthOf(window) * factor, WINDOW_NS_MIN), widthOf(whole));
  const fromNs = timeAt(window, share) - share * width;
  return within({ fromNs, toNs: fromNs + width }, whole);
}

/** Moves the window by a share of its width, to later times when positive. Stays within everything. */
export function pan(window: Span, share: number, all: Span): Span {
  const by = share * widthOf(window);
  return within({ fromNs: window.fromNs + by, toNs: window.toNs + by }, fit(all));
}

/** The window around a time, as wide as it was. */
export function centre(window: Span, atNs: number, all: Span): Span {
  return pan(window, position(window, atNs) - 0.5, all);
}

/** The window moved so that the newest time is near its right end. */
export function follow(window: Span, all: Span): Span {
  const whole = fit(all);
  return within({ fromNs: whole.toNs - widthOf(window), toNs: whole.toNs }, whole);
}

function within(window: Span, whole: Span): Span {
  const width = Math.min(widthOf(window), widthOf(whole));
  const fromNs = Math.min(Math.max(window.fromNs, whole.fromNs), whole.toNs - width);
  return { fromNs: Math.floor(fromNs), toNs: Math.ceil(fromNs + width) };
}

export interface Tick {
  /** From 0 to 1. */
  readonly at: number;
  readonly text: string;
}

/** Round times in the window, at most `max` of them. */
export function ticks(window: Span, max: number): Tick[] {
  const step = roundStep(widthOf(window) / Math.max(1, max));
  const found: Tick[] = [];
  for (let at = Math.ceil(window.fromNs / step) * step; at <= window.toNs && found.length < max; at += step) {
    found.push({ at: position(window, at), text: sinceStart(at, step) });
  }
  return found;
}

/** The smallest of 1, 2, 5 times a power of ten that is not below `least`. */
function roundStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1)));
  return power * ([1, 2, 5].find((factor) => factor * power >= least) ?? 10);
}

/** A time since the start as `+1.25 s`, with as many digits as `step` (nanoseconds) needs. */
export function sinceStart(atNs: number, step: number): string {
  const units: [number, string][] = [
    [1e9, "s"],
    [1e6, "ms"],
    [1e3, "µs"],
  ];
  const magnitude = Math.max(Math.abs(atNs), step);
  const [size, unit] = units.find(([size]) => magnitude >= size) ?? [1, "ns"];
  const digits = Math.max(0, Math.ceil(Math.log10(size / step)));
  const value = atNs / size;
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(Math.min(digits, 9))} ${unit}`;
}
