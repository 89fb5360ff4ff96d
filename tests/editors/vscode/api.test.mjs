/**
 * The extension through the vscode API, inside the real extension host: a second extension (driver/) does the checks.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { breakpoint, breakpointVariables, FIRST_HIT_MS, logpoint } from "../support.mjs";
import { startDriver } from "./driver.mjs";

/** The checks of the driver have deadlines of their own, and end with the first that fails. */
const DRIVER_MS = 10 * FIRST_HIT_MS;

test("the extension through the vscode API", async (t) => {
  const driver = await startDriver({
    name: "vscode-api",
    checks: "api",
    task: () => ({ breakpoint, logpoint, breakpointVariables }),
  });
  t.after(() => driver.close());
  const { results, untried } = await driver.result(DRIVER_MS);
  assert.ok(results.length > 0);
  for (const { name, milliseconds, error } of results) {
    await t.test(`${name} (${milliseconds} ms)`, () => {
      if (error) throw new Error(error);
    });
  }
  assert.deepEqual(untried, [], "not tried after the failure");
});
