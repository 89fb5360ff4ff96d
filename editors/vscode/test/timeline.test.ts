import assert from "node:assert/strict";
import test from "node:test";
import { EXACT_HITS_MAX, LIST_HITS, MATCHES_MAX, Timeline } from "../src/timeline/model";
import { FakeAdapter } from "./fakeAdapter";

interface Shown {
  adapter: FakeAdapter;
  timeline: Timeline;
  draws: () => number;
}

/** A timeline over these many hits of each service, a microsecond apart, in turn. */
async function shown(each: number, services = ["api", "cart"]): Promise<Shown> {
  const adapter = new FakeAdapter();
  for (let turn = 0; turn < each; turn += 1) {
    services.forEach((service, index) => adapter.add(service, (turn * services.length + index) * 1_000));
  }
  let draws = 0;
  const timeline = new Timeline(adapter.ask, () => (draws += 1));
  await timeline.load();
  return { adapter, timeline, draws: () => draws };
}

const seqs = (timeline: Timeline): number[] => timeline.list.map(({ seq }) => seq);
const total = (timeline: Timeline): number => timeline.lanes.reduce((sum, { hits }) => sum + hits, 0);

test("a session without hits shows none, and no problem", async () => {
  const { timeline, draws } = await shown(0);
  assert.deepEqual([timeline.lanes, timeline.list, timeline.window, timeline.problem], [[], [], undefined, undefined]);
  assert.equal(draws(), 1);
});

test("few hits are marks of their own, a lane for each service", async () => {
  const { timeline } = await shown(5);
  assert.deepEqual(
    timeline.lanes.map(({ service, marks }) => [service, marks.map(({ seq }) => seq)]),
    [
      ["api", [1, 3, 5, 7, 9]],
      ["cart", [2, 4, 6, 8, 10]],
    ],
  );
  assert.equal(timeline.exact, true);
  assert.deepEqual(timeline.counts, { arrived: 10, dropped: 3, evicted: 0 });
});

test("a mark is as wide as its hit is uncertain", async () => {
  const adapter = new FakeAdapter().add("cart", 0, { uncertainty_ns: 0 }).add("cart", 1_000_000, { uncertainty_ns: 200_000 });
  const timeline = new Timeline(adapter.ask, () => undefined);
  await timeline.load();
  const [sharp, wide] = timeline.lanes[0]?.marks ?? [];
  const width = (timeline.window?.toNs ?? 0) - (timeline.window?.fromNs ?? 0);
  assert.ok(Math.abs((wide?.width ?? 0) - 400_000 / width) < 1e-6);
  // Never so narrow that it could not be seen: a hundredth of the window, with a hundred columns.
  assert.ok(Math.abs((sharp?.width ?? 0) - 0.01) < 1e-9);
});

test("many hits are counted, and zooming in shows them one by one", async () => {
  const { timeline } = await shown(1_000);
  assert.equal(timeline.exact, false);
  assert.equal(total(timeline), 2_000);
  assert.ok(timeline.lanes.every(({ marks }) => marks.length <= 100));
  await timeline.setFollowing(false);
  for (let step = 0; step < 4; step += 1) {
    await timeline.zoomBy(0.5, 0.5);
  }
  assert.equal(timeline.exact, true);
  assert.ok(total(timeline) > 50 && total(timeline) <= EXACT_HITS_MAX, `${total(timeline)} hits`);
  await timeline.showAll();
  assert.equal(total(timeline), 2_000);
});

test("all hits are reached by the list, page by page", async () => {
  const { timeline } = await shown(125);
  assert.deepEqual([seqs(timeline)[0], seqs(timeline).at(-1), timeline.hasNewer], [151, 250, false]);
  const reached = new Set(seqs(timeline));
  for (let page = 0; timeline.hasOlder; page += 1) {
    assert.ok(page < 10);
    await timeline.older();
    seqs(timeline).forEach((seq) => reached.add(seq));
  }
  assert.equal(reached.size, 250);
  assert.equal(timeline.hasNewer, true);
  await timeline.newer();
  assert.ok(seqs(timeline).includes(101));
  await timeline.toNewest();
  assert.equal(seqs(timeline).at(-1), 250);
});

test("the window and the list follow the newest hit until somebody looks elsewhere", async () => {
  const { adapter, timeline } = await shown(100);
  await timeline.zoomBy(0.25);
  const width = (timeline.window?.toNs ?? 0) - (timeline.window?.fromNs ?? 0);
  adapter.add("cart", 900_000);
  await timeline.load();
  assert.ok((timeline.window?.toNs ?? 0) > 900_000);
  assert.ok(Math.abs((timeline.window?.toNs ?? 0) - (timeline.window?.fromNs ?? 0) - width) <= 2);
  assert.equal(seqs(timeline).at(-1), 201);

  await timeline.panBy(-0.5);
  const { window } = timeline;
  await timeline.listFrom(10);
  adapter.add("cart", 2_000_000);
  await timeline.load();
  assert.deepEqual(timeline.window, window);
  assert.equal(seqs(timeline)[0], 10);
  await timeline.setFollowing(true);
  assert.equal(seqs(timeline).at(-1), 202);
});

test("a filter by service is over counts and list alike", async () => {
  const { timeline } = await shown(300);
  await timeline.setFilter({ host: "", service: "cart", goroutine: "", text: "" });
  assert.deepEqual(
    timeline.lanes.map(({ service, hits }) => [service, hits]),
    [["cart", 300]],
  );
  assert.ok(timeline.list.every(({ service }) => service === "cart"));
});

test("a search by text goes on until it has looked at every hit, and later only at the new ones", async () => {
  const { adapter, timeline } = await shown(2_500);
  await timeline.setFilter({ host: "", service: "", goroutine: "", text: "qty=7" });
  const expected = adapter.hits.filter(({ label }) => String(label).includes("qty=7")).length;
  assert.ok(expected > LIST_HITS);
  assert.equal(total(timeline), expected);
  assert.equal(timeline.exact, true);
  adapter.asked.length = 0;
  adapter.add("cart", 6_000_000, { label: "qty=7 again" });
  await timeline.load();
  assert.equal(total(timeline), expected + 1);
  const searches = adapter.asked.filter(({ args }) => args["from"] !== undefined);
  assert.deepEqual(
    searches.map(({ args }) => args["from"]),
    [5_001],
  );
});

test("a search keeps the newest matches, and says that there are more", async () => {
  const { timeline } = await shown(MATCHES_MAX);
  await timeline.setFilter({ host: "", service: "", goroutine: "", text: "qty" });
  assert.equal(total(timeline), MATCHES_MAX);
  assert.equal(timeline.cut, true);
});

test("a wrong filter is said to be wrong, and nothing is asked", async () => {
  const { adapter, timeline } = await shown(1);
  adapter.asked.length = 0;
  await timeline.setFilter({ host: "", service: "", goroutine: "main", text: "" });
  assert.match(timeline.problem ?? "", /'main' is not the number of a goroutine/);
  assert.equal(adapter.asked.length, 0);
});

test("a refusal is shown, what was there stays, and the next answer takes it away", async () => {
  const { adapter, timeline } = await shown(3);
  adapter.refusal = "the adapter has ended";
  await timeline.load();
  assert.equal(timeline.problem, "the adapter has ended");
  assert.equal(total(timeline), 6);
  adapter.refusal = undefined;
  await timeline.load();
  assert.equal(timeline.problem, undefined);
});

test("an answer that cannot be read is a problem, not an exception", async () => {
  const timeline = new Timeline(
    () => Promise.resolve({ hits: 5 }),
    () => undefined,
  );
  await timeline.load();
  assert.match(timeline.problem ?? "", /hits must be a list.*as new as the extension/);
});

test("while one load is under way, ten changes are one more load", async () => {
  const { adapter, timeline, draws } = await shown(3);
  const before = draws();
  let open = (): void => undefined;
  adapter.gate = new Promise((resolve) => (open = resolve));
  const loads = Array.from({ length: 10 }, () => timeline.load());
  open();
  await Promise.all(loads);
  assert.equal(draws() - before, 2);
});

test("an answer to a filter that was changed meanwhile is never shown", async () => {
  const { adapter, timeline } = await shown(300);
  let open = (): void => undefined;
  adapter.gate = new Promise((resolve) => (open = resolve));
  const first = timeline.setFilter({ host: "", service: "api", goroutine: "", text: "" });
  const second = timeline.setFilter({ host: "", service: "cart", goroutine: "", text: "" });
  open();
  await Promise.all([first, second]);
  assert.deepEqual(
    timeline.lanes.map(({ service }) => service),
    ["cart"],
  );
});

test("the end of a session takes everything away, also what is still being asked", async () => {
  const { adapter, timeline } = await shown(3);
  let open = (): void => undefined;
  adapter.gate = new Promise((resolve) => (open = resolve));
  const load = timeline.load();
  timeline.reset();
  adapter.hits = [];
  open();
  await load;
  assert.deepEqual([timeline.lanes, timeline.list, timeline.open], [[], [], undefined]);
});

test("the open hit is told, and the mark that stands for it is found", async () => {
  const { adapter, timeline } = await shown(5);
  adapter.open = 4;
  await timeline.load();
  assert.equal(timeline.open, 4);
  assert.equal(timeline.markOf(4)?.lane.service, "cart");
  assert.equal(timeline.markOf(99), undefined);
});

test("what is being looked at stays while newer hits come, and a row under the pointer until it is left", async () => {
  const { adapter, timeline } = await shown(100);
  const more = async (): Promise<void> => {
    for (let hit = 0; hit < 50; hit += 1) {
      adapter.add("cart", 1_000_000 + hit);
    }
    await timeline.load();
  };
  let before = seqs(timeline);
  timeline.hold(true);
  await more();
  assert.deepEqual(seqs(timeline), before);
  assert.deepEqual([timeline.hasNewer, timeline.following], [true, true]);
  timeline.hold(false);
  await more();
  assert.equal(seqs(timeline).at(-1), 300);
  before = seqs(timeline);
  await timeline.setFollowing(false);
  await more();
  assert.deepEqual(seqs(timeline), before);
});

for (const [what, keep] of [
  ["the list is held", (timeline: Timeline): void => timeline.hold(true)],
  ["the timeline stops following", (timeline: Timeline): void => timeline.stay()],
] as const) {
  test(`an answer that was on its way when ${what} puts no other hits under the pointer`, async () => {
    const { adapter, timeline, draws } = await shown(100);
    const before = seqs(timeline);
    for (let hit = 0; hit < 50; hit += 1) {
      adapter.add("cart", 1_000_000 + hit);
    }
    let open = (): void => undefined;
    adapter.gate = new Promise((resolve) => (open = resolve));
    const load = timeline.load();
    keep(timeline);
    const drawn = draws();
    open();
    await load;
    assert.deepEqual(seqs(timeline), before);
    assert.equal(draws(), drawn + 1, "the other hits were drawn in between");
  });
}

test("a hit of the list is brought into the window", async () => {
  const { timeline } = await shown(1_000);
  await timeline.zoomBy(0.1);
  await timeline.listFrom(1);
  await timeline.centreOn(2);
  assert.ok((timeline.window?.fromNs ?? 0) < 1_000, "the window begins before the hit");
  assert.ok(timeline.markOf(2));
});
