/**
 * Sessions of the debug adapter as its tests use them: begun in the order that VS Code uses, ended with their process.
 */
import assert from "node:assert/strict";
import { after } from "node:test";
import { ANSWER_MS, FIRST_HIT_MS, nats, shop, within } from "../support.mjs";
import { Adapter } from "./adapter.mjs";

const CLIENT = {
  clientID: "vscode",
  adapterID: "riptrace",
  linesStartAt1: true,
  columnsStartAt1: true,
  pathFormat: "path",
  supportsVariableType: true,
  supportsVariablePaging: true,
};

/** VS Code reads no `riptrace/hit`, and is sent none. */
export const TAKES_HITS = { clientID: "testsupport" };

const adapters = [];
after(() => adapters.forEach((adapter) => adapter.kill()));

/** An adapter that answered `initialize`. */
export async function initialized(name, client = {}) {
  const adapter = await Adapter.start(name);
  adapters.push(adapter);
  adapter.capabilities = await adapter.request("initialize", { ...CLIENT, ...client });
  return adapter;
}

/** Attaches and sets these breakpoints, in the order that VS Code uses. Returns the breakpoints of the response. */
export async function attached(adapter, { file, breakpoints, configuration = {} }) {
  const attach = adapter.request("attach", { nats, cwd: shop, ...configuration }, FIRST_HIT_MS);
  await Promise.race([adapter.event("initialized", () => true, { milliseconds: FIRST_HIT_MS }), attach]);
  await adapter.event("initialized", () => true, { milliseconds: FIRST_HIT_MS });
  const answer = await adapter.request("setBreakpoints", { source: { path: file }, breakpoints });
  await adapter.request("configurationDone", {});
  await attach;
  return answer.breakpoints;
}

/** Disconnects and waits for the end of the process. */
export async function disconnected(adapter) {
  await adapter.request("disconnect", { terminateDebuggee: true });
  const { code } = await within(ANSWER_MS, "the adapter ends after disconnect", adapter.ended);
  assert.equal(code, 0);
}

/** Waits until a breakpoint is armed; returns what the adapter says of it. */
export async function armed(adapter, id) {
  const { breakpoint: changed } = await adapter.event(
    "breakpoint",
    ({ reason, breakpoint: { id: changedId, verified } }) => reason === "changed" && changedId === id && verified,
    { milliseconds: FIRST_HIT_MS },
  );
  return changed;
}

/** The number of the hit that a `stopped` event opens. */
export function numberOf({ description }) {
  const match = /^Hit (\d+)\b/i.exec(description ?? "");
  assert.ok(match, `the stop's description is '${description}': expected 'Hit N ...'`);
  return Number(match[1]);
}
