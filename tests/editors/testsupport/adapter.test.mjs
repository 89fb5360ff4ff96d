/**
 * The debug adapter under an independent client, @vscode/debugadapter-testsupport, against a fleet that serves
 * requests all the time. Every wait has a deadline.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { breakpoint, breakpointVariables, FIRST_HIT_MS, logpoint, shop, within } from "../support.mjs";
import { armed, attached, disconnected, initialized, numberOf, TAKES_HITS } from "./session.mjs";

test("the adapter says what it can do", async () => {
  const adapter = await initialized("capabilities");
  for (const capability of [
    "supportsConfigurationDoneRequest",
    "supportsConditionalBreakpoints",
    "supportsHitConditionalBreakpoints",
    "supportsLogPoints",
    "supportsFunctionBreakpoints",
    "supportsStepBack",
    "supportsEvaluateForHovers",
  ]) {
    assert.equal(adapter.capabilities[capability], true, capability);
  }
  await disconnected(adapter);
});

test("each hit of a logpoint is one output line that opens to its variables", async () => {
  const adapter = await initialized("logpoint");
  const [point] = await attached(adapter, {
    file: logpoint.path,
    breakpoints: [{ line: logpoint.line, logMessage: `${logpoint.expression} is {${logpoint.expression}}` }],
  });
  assert.equal(point.line, logpoint.line);
  const changed = await armed(adapter, point.id);
  assert.match(changed.message, /armed in (\d+ of )?\d+ process/);

  const isHit = ({ output, variablesReference }) =>
    variablesReference > 0 && output.includes(`${logpoint.expression} is `);
  const hit = await adapter.event("output", isHit, { milliseconds: FIRST_HIT_MS });
  assert.match(hit.output, new RegExp(`${logpoint.expression} is -?\\d+`));
  assert.ok(hit.output.endsWith("\n"), "an output line ends in a newline");
  assert.equal(hit.category, "console");
  assert.equal(hit.source.path, logpoint.path);
  assert.equal(hit.line, logpoint.line);

  // Exactly one child: with none or several, VS Code drops the line's text.
  const { variables: records } = await adapter.request("variables", { variablesReference: hit.variablesReference });
  assert.equal(records.length, 1);
  assert.ok(records[0].variablesReference > 0);
  const { variables } = await adapter.request("variables", { variablesReference: records[0].variablesReference });
  assert.ok(
    variables.some(({ name }) => name === logpoint.expression),
    JSON.stringify(variables),
  );

  assert.ok(!adapter.events.some(({ event }) => event === "stopped"), "a logpoint opens no timeline");
  await disconnected(adapter);
});

test("the first hit of a breakpoint opens the timeline, which steps through the hits", async (t) => {
  const adapter = await initialized("timeline");
  const [point] = await attached(adapter, { file: breakpoint.path, breakpoints: [{ line: breakpoint.line }] });
  await armed(adapter, point.id);
  let stop = await adapter.event("stopped", () => true, { milliseconds: FIRST_HIT_MS });
  let frames;

  await t.test("the stop says which hit it is", () => {
    assert.equal(stop.reason, "breakpoint");
    assert.equal(numberOf(stop), 1);
  });

  await t.test("there is a thread for it", async () => {
    const { threads } = await adapter.request("threads");
    assert.ok(
      threads.some(({ id }) => id === stop.threadId),
      JSON.stringify(threads),
    );
    // VS Code forgets a stop when a thread event of the same thread follows it.
    const stopped = adapter.events.findIndex(({ event }) => event === "stopped");
    const announced = adapter.events.findIndex(
      ({ event, body }) => event === "thread" && body.threadId === stop.threadId,
    );
    assert.ok(announced >= 0 && announced < stopped, `thread event at ${announced}, stop at ${stopped}`);
  });

  await t.test("the stack's top frame is the line of the breakpoint, and pages are kept to", async () => {
    const whole = await adapter.request("stackTrace", { threadId: stop.threadId, startFrame: 0, levels: 20 });
    frames = whole.stackFrames;
    assert.equal(frames[0].line, breakpoint.line);
    assert.equal(frames[0].source.path, breakpoint.path);
    assert.ok(frames.length > 1, "the caller is on the stack");
    const second = await adapter.request("stackTrace", { threadId: stop.threadId, startFrame: 1, levels: 1 });
    assert.deepEqual(
      second.stackFrames.map(({ name }) => name),
      [frames[1].name],
    );
  });

  await t.test("its variables have values", async () => {
    const { scopes } = await adapter.request("scopes", { frameId: frames[0].id });
    const variables = [];
    for (const { variablesReference } of scopes) {
      variables.push(...(await adapter.request("variables", { variablesReference })).variables);
    }
    for (const name of breakpointVariables) {
      const variable = variables.find((candidate) => candidate.name === name);
      assert.ok(variable?.value, `${name} has no value among ${variables.map((each) => each.name).join(", ")}`);
    }
    assert.match(variables.find(({ name }) => name === "quantity").value, /^\d+$/);
  });

  await t.test("an expression over them is evaluated", async () => {
    const { result } = await adapter.request("evaluate", {
      expression: "quantity",
      frameId: frames[0].id,
      context: "watch",
    });
    assert.match(result, /^\d+$/);
  });

  await t.test("what was not captured is refused with a reason", async () => {
    const reason = await adapter.refusal("evaluate", {
      expression: "no_such_name",
      frameId: frames[0].id,
      context: "watch",
    });
    assert.match(reason, /no_such_name/);
  });

  const { threadId } = stop;
  await t.test("continue goes to the next hit, reverseContinue back", async () => {
    const next = await adapter.stopAfter(() => adapter.request("continue", { threadId }));
    assert.equal(numberOf(next), 2);
    const back = await adapter.stopAfter(() => adapter.request("reverseContinue", { threadId: next.threadId }));
    assert.equal(numberOf(back), 1);
  });

  await t.test("next goes to the goroutine's next hit, stepBack back", async () => {
    // A goroutine that has no later hit yet shows the same one again.
    const deadline = Date.now() + FIRST_HIT_MS;
    let next = stop;
    while (numberOf(next) === numberOf(stop)) {
      assert.ok(Date.now() < deadline, `the goroutine of the first hit had no later one in ${FIRST_HIT_MS} ms`);
      next = await adapter.stopAfter(() => adapter.request("next", { threadId }));
    }
    assert.ok(numberOf(next) > numberOf(stop));
    const back = await adapter.stopAfter(() => adapter.request("stepBack", { threadId: next.threadId }));
    assert.equal(numberOf(back), 1);
  });

  await t.test("pause goes to the newest hit", async () => {
    const newest = await adapter.stopAfter(() => adapter.request("pause", { threadId }));
    assert.ok(numberOf(newest) >= 1);
  });

  await t.test("the message of the breakpoint counts its hits", async () => {
    await adapter.event(
      "breakpoint",
      ({ breakpoint: { id, message } }) => id === point.id && /\b[1-9]\d* hits?\b/.test(message ?? ""),
      { milliseconds: FIRST_HIT_MS },
    );
  });

  await t.test("Stop ends the session, and the services run on", async () => {
    await disconnected(adapter);
    // A second session sees hits again: the processes still serve requests.
    const again = await initialized("after-stop");
    await attached(again, { file: breakpoint.path, breakpoints: [{ line: breakpoint.line }] });
    await again.event("stopped", () => true, { milliseconds: FIRST_HIT_MS });
    await disconnected(again);
  });
});

test("with stopOnHit off, hits of a breakpoint are rows only", async () => {
  const adapter = await initialized("no-stop");
  await attached(adapter, {
    file: breakpoint.path,
    breakpoints: [{ line: breakpoint.line }],
    configuration: { stopOnHit: false },
  });
  await adapter.event("output", ({ variablesReference, line }) => variablesReference > 0 && line === breakpoint.line, {
    milliseconds: FIRST_HIT_MS,
  });
  assert.ok(!adapter.events.some(({ event }) => event === "stopped"));
  await disconnected(adapter);
});

test("each shown hit is also a riptrace/hit event, right after its output line", async () => {
  const adapter = await initialized("hit-event", TAKES_HITS);
  await attached(adapter, { file: logpoint.path, breakpoints: [{ line: logpoint.line, logMessage: "x" }] });
  const hit = await adapter.event("riptrace/hit", () => true, { milliseconds: FIRST_HIT_MS });
  const position = adapter.events.findIndex(({ event }) => event === "riptrace/hit");
  const line = adapter.events.slice(0, position).findLast(({ event }) => event === "output");
  assert.ok(line?.body.variablesReference > 0, "no output line before the riptrace/hit event");
  assert.equal(hit.file, logpoint.path);
  assert.equal(hit.line, logpoint.line);
  for (const key of ["seq", "uncertainty_ns", "pid"]) assert.equal(typeof hit[key], "number", key);
  for (const key of ["time", "host", "service", "function", "message"]) assert.equal(typeof hit[key], "string", key);
  await disconnected(adapter);
});

test("a line that no build has code for stays unverified, with the reason", async () => {
  const adapter = await initialized("no-code");
  // The package clause: no build can have an instruction there, and no line may stand in for it silently.
  const [point] = await attached(adapter, { file: breakpoint.path, breakpoints: [{ line: 1 }] });
  assert.equal(point.verified, false);
  // With the answer when the fleet was quick, else in an event.
  if (!/\S{3}/.test(point.message ?? "")) {
    await adapter.event(
      "breakpoint",
      ({ breakpoint: { id, verified, message } }) => id === point.id && !verified && /\S{3}/.test(message ?? ""),
      { milliseconds: FIRST_HIT_MS },
    );
  }
  await disconnected(adapter);
});

test("a request that does not exist is refused and the session lives on", async () => {
  const adapter = await initialized("unknown-request");
  assert.match(await adapter.refusal("riptrace/no-such-request", {}), /no-such-request/);
  await attached(adapter, { file: breakpoint.path, breakpoints: [] });
  await disconnected(adapter);
});

test("a fleet that is not there is one clear error", async () => {
  const adapter = await initialized("no-fleet");
  const attach = adapter.refusal("attach", { nats: "nats://127.0.0.1:1", cwd: shop });
  assert.match(await within(FIRST_HIT_MS, "attach is refused", attach), /127\.0\.0\.1:1/);
  await disconnected(adapter);
});
