import assert from "node:assert/strict";
import test from "node:test";
import { DecodeError } from "../src/decode";
import { parseOverview, parsePage, type Hit } from "../src/timeline/data";
import { needsSearch, NO_FILTER, readFilter } from "../src/timeline/filter";
import { hitText, lanesOfHits, nearest } from "../src/timeline/marks";
import { parseFromPage } from "../src/timeline/messages";
import { Pace } from "../src/timeline/pace";
import { pageHtml } from "../src/timeline/page";
import { fit, follow, pan, position, sinceStart, ticks, widthOf, WINDOW_NS_MIN, zoom } from "../src/timeline/scale";

const all = { fromNs: 0, toNs: 1_000_000_000 };

function hit(seq: number, atNs: number, given: Partial<Hit> = {}): Hit {
  return {
    ...{ seq, atNs, time: "2026-11-23T10:00:00.000123456Z", uncertaintyNs: 41_000, host: "web-1", service: "cart" },
    ...{ pid: 812, thread: 815, goroutine: 34, function: "cart.Add", file: "/c/cart.go", line: 42, label: "qty=3\n" },
    ...{ undeterminedWith: [], late: false, durationNs: undefined, ...given },
  };
}

test("zooming keeps what is under the pointer, and ends at everything and at a microsecond", () => {
  const window = { fromNs: 400_000_000, toNs: 600_000_000 };
  const nearer = zoom(window, 0.5, 0.25, all);
  assert.ok(Math.abs(position(nearer, 450_000_000) - 0.25) < 1e-6);
  assert.equal(widthOf(nearer), 100_000_000);
  assert.deepEqual(zoom(window, 1_000, 0.5, all), fit(all));
  assert.ok(Math.abs(widthOf(zoom(window, 1e-12, 0.5, all)) - WINDOW_NS_MIN) <= 1);
});

test("the window stays within everything", () => {
  const window = { fromNs: 400_000_000, toNs: 600_000_000 };
  assert.equal(pan(window, -100, all).fromNs, fit(all).fromNs);
  assert.equal(pan(window, 100, all).toNs, fit(all).toNs);
  assert.equal(follow(window, all).toNs, fit(all).toNs);
  assert.equal(widthOf(follow(window, all)), widthOf(window));
});

test("ticks are round times within the window", () => {
  const found = ticks({ fromNs: 1_230_000_000, toNs: 1_270_000_000 }, 8);
  assert.deepEqual(
    found.map(({ text }) => text),
    ["+1.230 s", "+1.235 s", "+1.240 s", "+1.245 s", "+1.250 s", "+1.255 s", "+1.260 s", "+1.265 s"],
  );
  assert.ok(found.every(({ at }) => at >= 0 && at <= 1));
  for (const width of [1, 999, 1e3, 5e6, 3.3e9, 1e13]) {
    const count = ticks({ fromNs: 0, toNs: width }, 8).length;
    assert.ok(count >= 1 && count <= 8, `${count} ticks in ${width} ns`);
  }
});

test("times since the start have the digits that their step needs", () => {
  assert.equal(sinceStart(1_500_000, 100_000), "+1.5 ms");
  assert.equal(sinceStart(-20_000, 1_000), "−20 µs");
  assert.equal(sinceStart(0, 1), "+0 ns");
  assert.equal(sinceStart(90e9, 10e9), "+90 s");
});

test("hits that are too near to be told apart are one mark, which says so", () => {
  const [lane] = lanesOfHits([hit(1, 0), hit(2, 10), hit(3, 500_000_000, { late: true })], all, 0.01);
  assert.deepEqual(
    lane?.marks.map(({ seq, hits, late }) => [seq, hits, late]),
    [
      [1, 2, false],
      [3, 1, true],
    ],
  );
  assert.match(lane?.marks[0]?.label ?? "", /^2 hits from Hit 1, cart on web-1/);
  assert.equal(lane?.marks[0]?.holds(2), true);
  assert.equal(lane?.marks[0]?.holds(3), false);
});

test("a hit is told in one line with its uncertainty, and with the order that is not certain", () => {
  assert.equal(hitText(hit(12, 0)), "Hit 12, cart on web-1, goroutine 34, 10:00:00.000123456 ±41 µs, qty=3");
  const late = hit(12, 0, { undeterminedWith: [10, 11], late: true, durationNs: 1_500_000, goroutine: undefined });
  assert.equal(
    hitText(late),
    "Hit 12, cart on web-1, 10:00:00.000123456 ±41 µs, took 1.5 ms, qty=3, order against hit 10, 11 not certain, came late",
  );
});

test("from one lane to another the nearest mark is taken", () => {
  const [lane] = lanesOfHits([hit(1, 0), hit(2, 400_000_000), hit(3, 900_000_000)], all, 0.001);
  assert.equal(nearest(lane?.marks ?? [], 0.5), 1);
  assert.equal(nearest([], 0.5), -1);
});

test("the form is the adapter's filter", () => {
  const read = readFilter({ host: " web-* ", service: "cart", goroutine: "34", text: "tea" });
  assert.deepEqual(read, { kind: "filter", filter: { host: "web-*", service: "*cart*", goroutine: 34, text: "tea" } });
  assert.deepEqual(readFilter({ ...NO_FILTER, text: "= qty > 3" }), { kind: "filter", filter: { when: "qty > 3" } });
  assert.deepEqual(readFilter({ ...NO_FILTER, text: "=" }), { kind: "filter", filter: {} });
  assert.equal(readFilter({ ...NO_FILTER, goroutine: "x" }).kind, "problem");
  assert.deepEqual([needsSearch({ service: "a" }), needsSearch({ text: "a" }), needsSearch({ when: "a" })], [false, true, true]);
});

const page = { hits: [], next: null, previous: null, oldest: null, newest: null, open: null, arrived: 0, evicted: 0, dropped: 0 };
const lane = { service: "cart", hits: 1, counts: [1], first: [1], uncertainty_ns: 0 };

for (const [name, read, expected] of [
  ["a page without hits", () => parsePage({ ...page, hits: "x" }), /hits must be a list/],
  ["too many hits", () => parsePage({ ...page, hits: Array(501).fill({}) }), /501 entries; the most is 500/],
  ["a hit without a number", () => parsePage({ ...page, hits: [{}] }), /hits\[0\]\.seq must be a whole number/],
  ["a time that is none", () => parseOverview({ from_ns: "0", to_ns: 1, buckets: 1, services: [] }), /from_ns must be a number/],
  ["a lane of another width", () => parseOverview({ from_ns: 0, to_ns: 1, buckets: 2, services: [lane] }), /1 and 1 pieces instead of 2/],
  ["a message of no kind", () => parseFromPage({ type: "eval" }), /'eval' is no message/],
  ["a question that a page may not ask", () => parseFromPage({ type: "ask", id: 1, request: "evaluate", args: {} }), /may not ask for 'evaluate'/],
  ["a hit that is no number", () => parseFromPage({ type: "open", seq: "1" }), /seq must be a whole number/],
] as const) {
  test(`${name} is refused`, () => {
    assert.throws(read, (error) => error instanceof DecodeError && expected.test(error.message));
  });
}

test("the page loads nothing but its own script and style", () => {
  const html = pageHtml({ source: "https://files", script: 'https://files/a".js', style: "https://files/a.css", nonce: "n1" });
  assert.match(html, /default-src 'none'; style-src https:\/\/files; script-src 'nonce-n1'/);
  assert.match(html, /src="https:\/\/files\/a&quot;\.js"/);
  assert.equal(html.match(/<script/g)?.length, 1);
  assert.doesNotMatch(html, /style="|onclick|unsafe-/);
});

test("every control of the page has a name for a screen reader", () => {
  const html = pageHtml({ source: "s", script: "a.js", style: "a.css", nonce: "n" });
  for (const [input] of html.matchAll(/<input[^>]*>/g)) {
    assert.match(input, /aria-label="[^"]+"/);
  }
  for (const [, attributes, text] of html.matchAll(/<button([^>]*)>([^<]*)/g)) {
    assert.ok(/aria-label="[^"]+"/.test(attributes ?? "") || /\w/.test(text ?? ""), `${attributes} ${text}`);
  }
});

test("a view that is loaded by itself rests four times as long as its load took", () => {
  const pace = new Pace();
  assert.equal(pace.wait(100), 0);
  pace.loaded(100, 150);
  assert.equal(pace.wait(150), 200);
  assert.equal(pace.wait(300), 50);
  assert.equal(pace.wait(1_000), 0);
});
