import assert from "node:assert/strict";
import test from "node:test";
import { TRACE_CHARACTERS_MAX, traceLine } from "../src/trace";

const request = { seq: 3, type: "request", command: "setBreakpoints", arguments: { source: {} } };

test("nothing is logged when tracing is off", () => {
  assert.equal(traceLine("off", "in", request), undefined);
});

test("a message is named by its kind and direction", () => {
  assert.equal(traceLine("messages", "in", request), "editor -> adapter: request 3 setBreakpoints");
  const failed = { seq: 9, type: "response", request_seq: 3, command: "setBreakpoints", success: false };
  assert.equal(traceLine("messages", "out", failed), "adapter -> editor: response to 3 setBreakpoints (failed)");
  assert.equal(traceLine("messages", "out", { type: "event", event: "output" }), "adapter -> editor: event output");
});

test("verbose adds the message itself", () => {
  assert.ok(traceLine("verbose", "in", request)?.endsWith(JSON.stringify(request)));
});

test("a long message is cut and its length told", () => {
  const line = traceLine("verbose", "out", { type: "event", event: "output", text: "x".repeat(10_000) }) ?? "";
  assert.ok(line.length < TRACE_CHARACTERS_MAX + 100);
  assert.match(line, /\.\.\. \(\d{5} characters\)$/);
});

test("what is no message is said to be none", () => {
  assert.equal(traceLine("messages", "out", null), "adapter -> editor: not a message");
  assert.equal(traceLine("messages", "out", { type: 7 }), "adapter -> editor: not a message");
});
