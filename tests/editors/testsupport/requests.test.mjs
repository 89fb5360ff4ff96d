/**
 * What an editor may ask of a session beyond stepping: expressions, completions, jumps, sources, exceptions, the requests
 * of RipTrace's own, restart, and a saved session that is opened without any fleet. As adapter.test.mjs, under an
 * independent client against a fleet that serves requests all the time.
 */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { gatewayAddress, sendOrders } from "../orders.mjs";
import { breakpoint, FIRST_HIT_MS, locationOf, shop } from "../support.mjs";
import { armed, attached, disconnected, initialized, numberOf, TAKES_HITS } from "./session.mjs";

const checkout = locationOf("cmd/gateway/main.go", "BP gateway-checkout");
const FIRST = { milliseconds: FIRST_HIT_MS };
/** Hits that a page of the timeline must have before its pages are compared: two orders. */
const SOME_HITS = 6;

/** The frames of the thread that a `stopped` event names. */
async function framesAt(adapter, { threadId }) {
  return (await adapter.request("stackTrace", { threadId })).stackFrames;
}

/** Waits until the session has so many hits; returns its statistics. */
async function withHits(adapter, hits) {
  const deadline = Date.now() + FIRST_HIT_MS;
  for (;;) {
    const from = adapter.events.length;
    const statistics = await adapter.request("riptrace/statistics", {});
    if (statistics.hits >= hits) return statistics;
    const left = deadline - Date.now();
    await adapter.event("riptrace/statistics", (body) => body.hits >= hits, { from, milliseconds: Math.max(1, left) });
  }
}

test("a session answers what editors and views ask", async (t) => {
  const adapter = await initialized("requests", { supportsProgressReporting: true, supportsInvalidatedEvent: true });
  const attaching = attached(adapter, {
    file: breakpoint.path,
    breakpoints: [{ line: breakpoint.line }],
    configuration: { correlate: "requestID" },
  });
  const [point] = await attaching;
  const gateway = await adapter.request("setBreakpoints", {
    source: { path: checkout.path },
    breakpoints: [{ line: checkout.line }],
  });
  await armed(adapter, point.id);
  await armed(adapter, gateway.breakpoints[0].id);
  let stop = await adapter.event("stopped", () => true, FIRST);
  let frames = await framesAt(adapter, stop);
  await withHits(adapter, SOME_HITS);
  const atFrame = (expression, context) =>
    adapter.request("evaluate", { expression, frameId: frames[0].id, context }).then(({ result }) => result);

  await t.test("joining the fleet is told as progress with an end", () => {
    const of = (kind) => adapter.events.filter(({ event }) => event === kind).map(({ body }) => body.progressId);
    assert.ok(of("progressStart").length > 0);
    assert.deepEqual(of("progressEnd"), of("progressStart"));
  });

  await t.test("step into follows a request to the next process, step out goes back", async () => {
    const fileOf = async (at) => path.basename((await framesAt(adapter, at))[0].source.path);
    // A hit of the gateway: the first one, or where the cart's came from.
    if ((await fileOf(stop)) !== "main.go") {
      const targets = await adapter.request("gotoTargets", { source: { path: checkout.path }, line: checkout.line });
      stop = await adapter.stopAfter(() =>
        adapter.request("goto", { threadId: stop.threadId, targetId: targets.targets[0].id }),
      );
      assert.equal(stop.reason, "goto");
    }
    const request = await requestOf(adapter, stop);
    const into = await adapter.stopAfter(() => adapter.request("stepIn", { threadId: stop.threadId }));
    assert.equal(await fileOf(into), "cart.go");
    assert.equal(await requestOf(adapter, into), request);
    const out = await adapter.stopAfter(() => adapter.request("stepOut", { threadId: into.threadId }));
    assert.equal(numberOf(out), numberOf(stop));
    stop = await adapter.stopAfter(() => adapter.request("stepIn", { threadId: out.threadId }));
    frames = await framesAt(adapter, stop);
  });

  await t.test("expressions are evaluated in each context and format", async () => {
    const quantity = Number(await atFrame("quantity", "watch"));
    assert.ok(quantity > 0);
    assert.equal(await atFrame("quantity * 2 + 1", "watch"), String(quantity * 2 + 1));
    assert.equal(await atFrame("quantity > 0 && len(requestID) > 0", "hover"), "true");
    assert.equal(await atFrame("quantity,x", "watch"), `0x${quantity.toString(16)}`);
    assert.equal(await atFrame("line.Quantity", "repl"), await atFrame("line.Quantity", "hover"));
    assert.match(await atFrame("requestID", "clipboard"), /^[^"]/);
    // Without a frame: over the open hit.
    const { result } = await adapter.request("evaluate", { expression: "quantity", context: "repl" });
    assert.equal(result, String(quantity));
    for (const command of ["help", "hits", "fleet"]) {
      const said = await adapter.request("evaluate", { expression: command, context: "repl" });
      assert.match(said.result, /\w+/, command);
    }
  });

  await t.test("what was not captured is offered as a capture for the next hits", async () => {
    const refused = await adapter.refusal("evaluate", {
      expression: "c.nothing_of_it",
      frameId: frames[0].id,
      context: "repl",
    });
    assert.match(refused, /nothing_of_it/);
    await adapter.request("riptrace/capture", { breakpoint: point.id, expression: "len(c.Items)" });
    const again = await adapter.refusal("riptrace/capture", { breakpoint: point.id, expression: "len(c.Items)" });
    assert.match(again, /captured already/);
  });

  await t.test("completions are variables, fields behind a dot, and commands", async () => {
    const labels = async (text) => {
      const asked = { text, column: text.length + 1, frameId: frames[0].id };
      return (await adapter.request("completions", asked)).targets.map(({ label }) => label);
    };
    assert.ok((await labels("quan")).includes("quantity"));
    assert.ok((await labels("line.")).includes("Quantity"));
    assert.ok((await labels("he")).includes("help"));
  });

  await t.test("scopes tell the hit: host, process, time, uncertainty", async () => {
    const { scopes } = await adapter.request("scopes", { frameId: frames[0].id });
    const hit = scopes.find(({ name }) => /hit/i.test(name));
    assert.ok(hit, scopes.map(({ name }) => name).join(", "));
    const { variables } = await adapter.request("variables", { variablesReference: hit.variablesReference });
    const names = variables.map(({ name }) => name);
    for (const name of ["number", "host", "service", "time", "uncertainty"])
      assert.ok(names.includes(name), `${name}: ${names}`);
  });

  await t.test("pages of variables are kept to", async () => {
    const { scopes } = await adapter.request("scopes", { frameId: frames[0].id });
    const whole = await adapter.request("variables", { variablesReference: scopes[0].variablesReference });
    const named = { variablesReference: scopes[0].variablesReference, filter: "named", start: 1, count: 1 };
    const page = await adapter.request("variables", named);
    assert.deepEqual(
      page.variables.map(({ name }) => name),
      [whole.variables[1].name],
    );
  });

  await t.test("goto jumps to a hit of a line, a number and a time", async () => {
    const { targets } = await adapter.request("gotoTargets", {
      source: { path: breakpoint.path },
      line: breakpoint.line,
    });
    assert.ok(targets.length > 1, JSON.stringify(targets));
    const wanted = targets.at(-1);
    const there = await adapter.stopAfter(() =>
      adapter.request("goto", { threadId: stop.threadId, targetId: wanted.id }),
    );
    assert.equal(there.reason, "goto");
    assert.match(wanted.label, new RegExp(`\\bhit ${numberOf(there)}\\b`));
    const first = await adapter.stopAfter(() => adapter.request("evaluate", { expression: "goto 1", context: "repl" }));
    assert.equal(numberOf(first), 1);
    const third = await adapter.stopAfter(() => adapter.request("riptrace/openHit", { seq: 3 }));
    assert.equal(numberOf(third), 3);
    const { hits } = await adapter.request("riptrace/timelinePage", { from: 2, count: 1 });
    const second = await adapter.stopAfter(() => adapter.request("riptrace/openHit", { time: hits[0].time }));
    assert.equal(numberOf(second), 2);
    assert.match(await adapter.refusal("riptrace/openHit", { seq: 999_999_999 }), /999999999/);
    stop = second;
    frames = await framesAt(adapter, stop);
  });

  await t.test("a frame outside of the checkout has the text that was deployed, or says why not", async () => {
    const all = await framesAt(adapter, stop);
    assert.ok(all.length > 2);
    const deployed = all.find(({ source }) => source?.sourceReference > 0);
    assert.ok(deployed, "no frame of the standard library is on the stack");
    const asked = { sourceReference: deployed.source.sourceReference, source: deployed.source };
    const answer = await adapter.request("source", asked).then(
      ({ content }) => content,
      (error) => error.message,
    );
    assert.match(answer, /package |local clone does not have/);
    assert.match(await adapter.refusal("source", { sourceReference: 123_456_789 }), /123456789/);
  });

  await t.test("loaded sources and modules are those of the fleet", async () => {
    const { sources } = await adapter.request("loadedSources", {});
    assert.ok(
      sources.some((source) => source.path === breakpoint.path),
      JSON.stringify(sources),
    );
    const { modules } = await adapter.request("modules", {});
    assert.ok(
      modules.some(({ name }) => name.includes("example.com/shop") || name.includes("cart")),
      JSON.stringify(modules),
    );
  });

  await t.test("the lines of a file that can be traced are told", async () => {
    const asked = { source: { path: breakpoint.path }, line: breakpoint.line };
    const { breakpoints } = await adapter.request("breakpointLocations", asked);
    assert.deepEqual(
      breakpoints.map(({ line }) => line),
      [breakpoint.line],
    );
  });

  await t.test("what would change or stop a service is refused with a reason, or stays unverified", async () => {
    const { scopes } = await adapter.request("scopes", { frameId: frames[0].id });
    const variable = { variablesReference: scopes[0].variablesReference, name: "quantity", value: "1" };
    assert.match(await adapter.refusal("setVariable", variable), /\w+ \w+/);
    const data = await adapter.request("dataBreakpointInfo", { name: "quantity", frameId: frames[0].id });
    assert.equal(data.dataId, null);
    assert.match(data.description, /\w+ \w+/);
    const set = await adapter.request("setInstructionBreakpoints", { breakpoints: [{ instructionReference: "0x1" }] });
    assert.equal(set.breakpoints[0].verified, false);
    assert.match(set.breakpoints[0].message, /\w+ \w+/);
  });

  await t.test("the fleet is told with its tracepoints", async () => {
    // The count of hits comes with what the agents say of themselves, a moment later than the hits.
    const deadline = Date.now() + FIRST_HIT_MS;
    let own;
    do {
      const from = adapter.events.length;
      const fleet = await adapter.request("riptrace/fleet", { refresh: true });
      assert.ok(fleet.hosts.some(({ processes }) => processes.some(({ service }) => service === "cart")));
      own = fleet.tracepoints.filter((each) => each.own && each.line === breakpoint.line);
      assert.equal(own.length, 1, JSON.stringify(fleet.tracepoints));
      if (own[0].hits > 0) break;
      const left = Math.max(1, deadline - Date.now());
      await adapter.event("riptrace/fleetChanged", () => true, { from, milliseconds: left });
    } while (Date.now() < deadline);
    assert.equal(own[0].state, "armed");
    assert.ok(["jump", "trap", "ptrace"].includes(own[0].mechanism));
    assert.ok(own[0].hits > 0, JSON.stringify(own));
  });

  await t.test("pages of the timeline join without a gap, in both directions, and filters hold", async () => {
    const seqs = async (args) => {
      const page = await adapter.request("riptrace/timelinePage", args);
      return { ...page, seqs: page.hits.map(({ seq }) => seq) };
    };
    const first = await seqs({ from: 1, count: 3 });
    const second = await seqs({ from: first.next, count: 3 });
    assert.deepEqual([...first.seqs, ...second.seqs], [1, 2, 3, 4, 5, 6]);
    const back = await seqs({ before: 7, count: 3 });
    assert.deepEqual(back.seqs, [4, 5, 6]);
    assert.deepEqual((await seqs({ before: back.previous, count: 3 })).seqs, [1, 2, 3]);
    const cart = await adapter.request("riptrace/timelinePage", { filter: { service: "cart", when: "quantity > 0" } });
    assert.ok(cart.hits.length > 0 && cart.hits.every(({ service }) => service === "cart"));
    const nobody = await adapter.request("riptrace/timelinePage", { filter: { service: "nobody" } });
    assert.deepEqual(nobody.hits, []);
    assert.match(await adapter.refusal("riptrace/timelinePage", { from: 1, before: 2 }), /not both/);
    assert.match(await adapter.refusal("riptrace/timelinePage", { filter: { when: "quantity >" } }), /when/);
  });

  await t.test("the overview counts what the pages have", async () => {
    const overview = await adapter.request("riptrace/timelineOverview", { buckets: 10 });
    const { kept } = await adapter.request("riptrace/timelinePage", { count: 1 });
    for (const { hits, counts } of overview.services)
      assert.equal(
        counts.reduce((sum, each) => sum + each, 0),
        hits,
      );
    const counted = overview.services.reduce((sum, { hits }) => sum + hits, 0);
    assert.ok(counted <= kept && counted >= SOME_HITS, `${counted} of ${kept}`);
  });

  await t.test("cancel of what is not under way is answered", async () => {
    // The protocol says that it is no error: what was to be taken back may just have ended.
    assert.deepEqual(await adapter.request("cancel", { progressId: "no such progress" }), {});
    assert.deepEqual(await adapter.request("cancel", { requestId: 999_999 }), {});
    const { threads } = await adapter.request("threads");
    assert.ok(threads.length > 0);
  });

  await t.test("a saved session is opened without any fleet, and has the same hits", async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "riptrace-saved-"));
    t.after(() => rm(folder, { recursive: true, force: true }));
    const file = path.join(folder, "session.riptrace");
    const saved = await adapter.request("riptrace/save", { path: file });
    assert.ok(saved.hits >= SOME_HITS && saved.bytes > 0, JSON.stringify(saved));
    const recording = await initialized("recording");
    const launch = recording.request("launch", { recording: file, cwd: shop }, FIRST_HIT_MS);
    await recording.event("initialized", () => true, FIRST);
    await recording.request("configurationDone", {});
    await launch;
    const opened = await recording.event("stopped", () => true, FIRST);
    const [top] = await framesAt(recording, opened);
    assert.ok(top.line === breakpoint.line || top.line === checkout.line, JSON.stringify(top));
    const ask = { from: 1, count: 5 };
    const live = await adapter.request("riptrace/timelinePage", ask);
    const kept = await recording.request("riptrace/timelinePage", ask);
    const facts = ({ hits }) =>
      hits.map(({ seq, time, service, label, line }) => ({ seq, time, service, label, line }));
    assert.deepEqual(facts(kept), facts(live));
    const { kept: count } = await recording.request("riptrace/timelinePage", { count: 1 });
    assert.equal(count, saved.hits);
    await recording.request("restart", {});
    assert.equal(numberOf(await recording.event("stopped", () => true, { from: recording.events.length - 1 })), 1);
    await disconnected(recording);
  });

  await t.test("restart empties the timeline and arms all breakpoints anew", async () => {
    const from = adapter.events.length;
    const { newest } = await adapter.request("riptrace/timelinePage", { count: 1 });
    await adapter.request("restart", {});
    await adapter.event("stopped", (body) => numberOf(body) > 0, { from, ...FIRST });
    const page = await adapter.request("riptrace/timelinePage", { from: 1, count: 1 });
    assert.ok(
      page.hits[0].seq > newest || page.oldest > newest,
      `the oldest hit is ${page.oldest}, the newest was ${newest}`,
    );
  });

  await disconnected(adapter);
});

/** The request id of the hit that is open. */
async function requestOf(adapter, stop) {
  const [{ id }] = await framesAt(adapter, stop);
  return (await adapter.request("evaluate", { expression: "requestID", frameId: id, context: "watch" })).result;
}

test("a function breakpoint shows calls with their duration", async () => {
  const adapter = await initialized("function", TAKES_HITS);
  await attached(adapter, { file: breakpoint.path, breakpoints: [], configuration: { stopOnHit: false } });
  const asked = { breakpoints: [{ name: "cart.(*Cart).Add:call" }] };
  const { breakpoints } = await adapter.request("setFunctionBreakpoints", asked);
  await armed(adapter, breakpoints[0].id);
  const hit = await adapter.event("riptrace/hit", ({ duration_ns }) => duration_ns !== null, FIRST);
  assert.match(hit.function, /cart\.\(\*Cart\)\.Add/);
  assert.ok(hit.duration_ns > 0);
  await disconnected(adapter);
});

test("an error that is not nil opens as an exception, the other returns are counted", async () => {
  const adapter = await initialized("exception");
  const filters = adapter.capabilities.exceptionBreakpointFilters.map(({ filter }) => filter);
  assert.deepEqual(filters.sort(), ["cpp-throw", "go-error", "go-panic", "rust-panic"]);
  await attached(adapter, { file: breakpoint.path, breakpoints: [] });
  const { breakpoints } = await adapter.request("setExceptionBreakpoints", {
    filters: [],
    filterOptions: [{ filterId: "go-error", condition: "cart.(*Cart).Add" }],
  });
  await armed(adapter, breakpoints[0].id);
  // The last line of such an order is refused by the cart.
  await sendOrders(await gatewayAddress(), { marker: "refused", hitsPerS: 50, seconds: 1 });
  const stop = await adapter.event("stopped", ({ reason }) => reason === "exception", FIRST);
  const info = await adapter.request("exceptionInfo", { threadId: stop.threadId });
  assert.equal(info.breakMode, "always");
  assert.match(info.details.stackTrace, /cart\.\(\*Cart\)\.Add/);
  await adapter.event(
    "breakpoint",
    ({ breakpoint: { message } }) => /\d+ returns? without an error/.test(message ?? ""),
    FIRST,
  );
  await disconnected(adapter);
});
