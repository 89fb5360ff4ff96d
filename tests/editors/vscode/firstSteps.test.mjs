/**
 * The first use: a workbench in which RipTrace is installed and nothing else is there. What is missing is said with the
 * way to mend it, and the walkthrough ticks off each step when it is done.
 */
import assert from "node:assert/strict";
import { access, mkdir, readFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { ANSWER_MS, artefacts, breakpoint, FIRST_HIT_MS, shop } from "../support.mjs";
import { openBrowser } from "./browser.mjs";
import { startCodeServer } from "./codeServer.mjs";
import { Workbench } from "./workbench.mjs";

test("the first steps", async (t) => {
  await mkdir(artefacts, { recursive: true });
  const server = await startCodeServer({ name: "vscode-first", extensions: [process.env.RIPTRACE_VSIX], isNew: true });
  t.after(() => server.close());
  const browser = await openBrowser();
  t.after(() => browser.close());
  const { page } = browser;
  const workbench = new Workbench(page);
  await workbench.load(`${server.url}/?folder=${encodeURIComponent(shop)}`);
  const screenshot = (name) => page.screenshot({ path: path.join(artefacts, `vscode-${name}.png`) });
  /** After a failed step the rest is not tried. */
  const step = async (name, action) => {
    let problem;
    await t.test(name, async () => {
      try {
        await action();
      } catch (error) {
        problem = error;
        await screenshot(`failed-${name.replaceAll(/[^A-Za-z0-9]+/g, "-")}`);
        throw await workbench.explained(error);
      }
    });
    if (problem) throw new Error(`"${name}" failed; screenshots and logs are in ${artefacts}`);
  };

  await step("the walkthrough has its steps, and none is done", async () => {
    await workbench.showWalkthrough();
    for (const id of ["binary", "fleet", "line", "hits"]) {
      await workbench.walkthroughStep(id).waitFor({ timeout: ANSWER_MS });
      await workbench.walkthroughStepDone(id).waitFor({ state: "detached", timeout: ANSWER_MS });
    }
  });

  await step("that there is no binary is said, with what to do", async () => {
    const said = workbench.notification(/no riptrace binary on PATH.*Build it.*riptrace\.path/);
    await said.waitFor({ timeout: ANSWER_MS });
    await said.locator("a.monaco-button, .monaco-button", { hasText: "Open setting" }).waitFor({ timeout: ANSWER_MS });
    await workbench.runCommand("RipTrace: Show fleet");
    await workbench.fleetSays(/no riptrace binary on PATH/).waitFor({ timeout: ANSWER_MS });
    await workbench.fleetRow(/^Say where the binary is/).waitFor({ timeout: ANSWER_MS });
    await workbench.fleetRow(/^First steps/).waitFor({ timeout: ANSWER_MS });
    await screenshot("first-without");
  });

  await step("the binary in the server's ~/.local/bin and the fleet that is set there tick off their steps", async () => {
    await server.configure();
    await workbench.fleetRow(/^Hosts\d/).waitFor({ timeout: ANSWER_MS });
    await workbench.walkthroughStepDone("binary").waitFor({ timeout: ANSWER_MS });
    await workbench.walkthroughStepDone("fleet").waitFor({ timeout: ANSWER_MS });
    await screenshot("first-steps");
  });

  await step("a breakpoint and F5 tick off the rest", async () => {
    await workbench.openFile(breakpoint.file);
    await workbench.goToLine(breakpoint.line);
    await workbench.runCommand("RipTrace: Trace this line");
    await workbench.stopDescription(/Hit \d+/i, FIRST_HIT_MS);
    await workbench.showWalkthrough();
    for (const id of ["binary", "fleet", "line", "hits"]) {
      await workbench.walkthroughStepDone(id).waitFor({ timeout: ANSWER_MS });
    }
    await workbench.statusBar
      .locator('[id="riptrace.riptrace.riptrace.hits"]', { hasText: /[\d,]+ hits?/ })
      .waitFor({ timeout: ANSWER_MS });
    await screenshot("first-done");
  });

  const stopTracing = async () => {
    await workbench.runCommand("RipTrace: Stop tracing");
    await workbench.debugButton("disconnect").waitFor({ state: "detached", timeout: ANSWER_MS });
  };
  /** What each session has asked the adapter for, the last one at the end. */
  const selectors = async () => {
    const said = await readFile(path.join(artefacts, "vscode-first-dap.in"), "utf8");
    const attach = /"command":"attach","arguments":(\{.*?\}),"type"|"arguments":(\{[^{}]*\}),"command":"attach"/g;
    return [...said.matchAll(attach)].map(([, one, other]) => JSON.parse(one ?? other).selector);
  };

  await step("Stop tracing ends it", stopTracing);

  await step("Attach to the fleet offers its services and hosts, and traces the one that is chosen", async () => {
    await workbench.runPicker("RipTrace: Attach to the fleet...", "cart, service=cart");
    for (const row of ["attach to the fleet, every process", "gateway, service=gateway", "all of host cart, host=cart"]) {
      await workbench.pickRow(row).waitFor({ timeout: ANSWER_MS });
    }
    await screenshot("first-attach");
    // By its selector, which stands beside the name.
    await workbench.takePickRow("service=cart", "cart, service=cart");
    await workbench.stopDescription(/Hit \d+/i, FIRST_HIT_MS);
    assert.equal((await selectors()).at(-1), "service=cart");
    await assert.rejects(access(path.join(shop, ".vscode", "launch.json")), { code: "ENOENT" });
    await stopTracing();
  });
});
