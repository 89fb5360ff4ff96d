/**
 * The real VS Code workbench with the built extension, against a fleet that serves requests all the time.
 *
 * One session from F5 to Stop, told as the user's actions in order; a failed step leaves a screenshot.
 */
import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { after, before, test } from "node:test";
import { ANSWER_MS, artefacts, breakpoint, breakpointVariables, FIRST_HIT_MS, logpoint, shop } from "../support.mjs";
import { openBrowser } from "./browser.mjs";
import { startCodeServer } from "./codeServer.mjs";
import { Workbench } from "./workbench.mjs";

const linkOf = ({ file, line }) => `${path.basename(file)}:${line}`;

let server;
let browser;
let workbench;

before(async () => {
  await mkdir(artefacts, { recursive: true });
  server = await startCodeServer({ name: "vscode", extensions: [process.env.RIPTRACE_VSIX] });
  browser = await openBrowser();
  workbench = new Workbench(browser.page);
  await workbench.load(`${server.url}/?folder=${encodeURIComponent(shop)}`);
});

after(async () => {
  await browser?.close();
  await server?.close();
});

/** One thing the user does. After a failed one the rest is not tried: it would only report what follows from it. */
const steps = [];
function step(name, action) {
  steps.push({ name, action });
}

test("a session in the workbench", async (t) => {
  for (const { name, action } of steps) {
    let problem;
    await t.test(name, async () => {
      try {
        await action();
      } catch (error) {
        problem = error;
        await screenshot(`failed ${name}`);
        throw await workbench.explained(error);
      }
    });
    if (problem) throw new Error(`"${name}" failed; screenshots and logs are in ${artefacts}`);
  }
});

async function screenshot(name) {
  const file = `vscode-${name.replaceAll(/[^A-Za-z0-9]+/g, "-")}.png`;
  await browser.page.screenshot({ path: path.join(artefacts, file) });
}

step("the Fleet view lists hosts, processes and builds before anything is traced", async () => {
  await workbench.showFleet();
  await workbench.fleetRow(/^Hosts\d/).waitFor({ timeout: ANSWER_MS });
  await workbench.fleetRow(/^cart\d+, go/).waitFor({ timeout: ANSWER_MS });
  await workbench.openFleetRow(/^Builds\d/);
  await workbench.fleetRow(/^example\.com\/shop.*process/).waitFor({ timeout: ANSWER_MS });
});

step("the Timeline says that no session runs", async () => {
  await workbench.showTimeline();
  await workbench.timeline.locator("#attach").waitFor({ timeout: ANSWER_MS });
});

step("a click in the gutter sets a breakpoint", async () => {
  await workbench.openFile(breakpoint.file);
  await workbench.goToLine(breakpoint.line);
  await workbench.clickGutter(breakpoint.line);
});

step("a logpoint is added in the same file", async () => {
  if (logpoint.file !== breakpoint.file) await workbench.openFile(logpoint.file);
  await workbench.goToLine(logpoint.line);
  await workbench.addLogpoint(`${logpoint.expression}={${logpoint.expression}}`);
  await workbench.glyph("debug-breakpoint-log").first().waitFor({ timeout: ANSWER_MS });
});

step("F5 without a launch.json attaches, and the first hit opens the timeline", async () => {
  await workbench.startDebugging();
  await workbench.stopDescription(/Hit \d+/i, FIRST_HIT_MS);
  await workbench.callStackRows.first().waitFor({ timeout: ANSWER_MS });
});

step("breakpoint and logpoint are shown as armed", async () => {
  await workbench.breakpointRow("debug-breakpoint", breakpoint.line).waitFor({ timeout: ANSWER_MS });
  await workbench.breakpointRow("debug-breakpoint-log", logpoint.line).waitFor({ timeout: ANSWER_MS });
  await workbench.openFile(logpoint.file);
  await workbench.goToLine(logpoint.line);
  await workbench.hoverGlyph("debug-breakpoint-log", /armed\sin\s(\d+\sof\s)?\d+\sprocess/);
  await screenshot("armed");
});

step("every hit is a row of the Debug Console with its source", async () => {
  await workbench.showDebugConsole();
  await workbench.consoleRow(/\S/, linkOf(breakpoint)).first().waitFor({ timeout: FIRST_HIT_MS });
  await workbench
    .consoleRow(new RegExp(`${logpoint.expression}=-?\\d+`), linkOf(logpoint))
    .first()
    .waitFor({ timeout: FIRST_HIT_MS });
});

step("a row opens to the variables of its hit", async () => {
  const variables = await workbench.openHitRow(linkOf(breakpoint));
  for (const name of breakpointVariables) {
    assert.ok(variables.get(name), `${name} is not among ${[...variables.keys()].join(", ")}`);
  }
  assert.match(variables.get("quantity"), /^\d+$/);
  await screenshot("hit row");
});

step("the Variables pane shows the moment of the hit", async () => {
  for (const name of breakpointVariables) await workbench.variable(name);
  await workbench.variable("quantity", /^\d+$/);
  await screenshot("variables");
});

step("Continue shows the next hit of the fleet and Reverse the one before", async () => {
  const before = await hitNumber();
  await workbench.pressDebugButton("continue");
  const next = await hitNumberOtherThan(before);
  assert.ok(next > before, `after hit ${before}, Continue showed hit ${next}`);
  await workbench.pressDebugButton("reverse-continue");
  assert.equal(await hitNumberOtherThan(next), before);
});

step("Step Over shows the next hit of the goroutine and Step Back the one before", async () => {
  const before = await hitNumber();
  let next;
  const deadline = Date.now() + FIRST_HIT_MS;
  while (next === undefined) {
    await workbench.pressDebugButton("step-over");
    // A goroutine that has no later hit yet shows the same one again: then it is asked again.
    next = await hitNumberOtherThan(before).catch((error) => {
      if (Date.now() > deadline) throw error;
    });
  }
  assert.ok(next > before, `after hit ${before}, Step Over showed hit ${next}`);
  await workbench.variable("number", new RegExp(`^${next}$`));
  await screenshot("step over");
  await workbench.pressDebugButton("step-back");
  assert.equal(await hitNumberOtherThan(next), before);
  await workbench.variable("number", new RegExp(`^${before}$`));
  await screenshot("step back");
});

step("the language server shows counts and values in the text", async () => {
  await workbench.openFile(breakpoint.file);
  await workbench.goToLine(breakpoint.line);
  await workbench.codeLenses.filter({ hasText: /hit/ }).first().waitFor({ timeout: FIRST_HIT_MS });
  const hint = await workbench.inlayHintOn(breakpoint.line, breakpoint.text, FIRST_HIT_MS);
  assert.match(hint, /=/, `the hint '${hint}' shows no value`);
  await screenshot("language server");
});

step("the Fleet view shows where the tracepoints are armed, how, and their hits", async () => {
  await workbench.showFleet();
  await workbench.fleetRow(/armed \d+\/\d+, [\d,]+ hits/).waitFor({ timeout: ANSWER_MS });
  await workbench.openFleetRow(new RegExp(`:${breakpoint.line}armed`));
  await workbench.fleetRow(/armed by (jump|trap|ptrace), [\d,]+ hits?, [\d.,]+\/s/).waitFor({ timeout: ANSWER_MS });
});

step("the Timeline has a lane for the service, and each hit's uncertainty", async () => {
  await workbench.showTimeline();
  await workbench.marks.first().waitFor({ timeout: ANSWER_MS });
  await workbench.hitRows.first().waitFor({ timeout: ANSWER_MS });
  assert.match(await workbench.hitRows.last().textContent(), /^\d+\d\d:\d\d:\d\d\.\d+ ±[\d.]+ [µm]?s/);
  assert.deepEqual(await workbench.timeline.locator(".lane .service").allTextContents(), ["cart"]);
  await screenshot("views");
});

step("a click on a hit opens it in the debugger", async () => {
  await workbench.showDebugger();
  await workbench.stopFollowing();
  const row = await workbench.otherHitRow(await hitNumber());
  await workbench.pressHitRow(row);
  assert.equal(await hitNumberThatIs(row), row);
  await workbench.openRowIs(row);
});

step("the Timeline is used by the keyboard alone", async () => {
  const first = await workbench.focusHitRow();
  const next = await workbench.moveInTimeline("ArrowDown");
  assert.ok(next > first, `below hit ${first} is hit ${next}`);
  await browser.page.keyboard.press("Enter");
  assert.equal(await hitNumberThatIs(next), next);
  await workbench.focusMark();
  await workbench.moveInTimeline("Home");
  await workbench.timeline.locator('#follow[aria-pressed="false"]').waitFor({ timeout: ANSWER_MS });
  const whole = await workbench.axisOtherThan(undefined);
  await browser.page.keyboard.press("z");
  await workbench.axisOtherThan(whole);
});

step("a filter leaves only the hits that match", async () => {
  await workbench.filterTimeline(`${logpoint.expression}=`);
  await workbench.hitRowsAll(new RegExp(`${logpoint.expression}=`));
  await workbench.filterTimeline(`=${logpoint.expression} > 1000`);
  await workbench.hitRowsAll(new RegExp(`${logpoint.expression}=[1-9]\\d{3}`));
  await screenshot("filtered");
  await workbench.filterTimeline(`=${logpoint.expression} >`);
  await workbench.timeline.locator("#problem:visible", { hasText: /when/ }).waitFor({ timeout: ANSWER_MS });
  await workbench.filterTimeline("");
  await workbench.timeline.locator("#problem").waitFor({ state: "hidden", timeout: ANSWER_MS });
});

step("every control of the views has a name for a screen reader", async () => {
  assert.deepEqual(await workbench.namelessInTimeline(), []);
});

step("the views are readable in the other theme too", async () => {
  const before = await workbench.timelineColours();
  await workbench.toggleTheme();
  const after = await workbench.timelineColours();
  for (const [name, { text, background }] of Object.entries({ before, after })) {
    assert.ok(contrast(text, background) >= 4.5, `${name}: ${text} on ${background}`);
  }
  assert.notEqual(before.background, after.background);
  await screenshot("views dark");
  await workbench.showFleet();
  await workbench.fleetRow(/armed \d+\/\d+, [\d,]+ hits/).waitFor({ timeout: ANSWER_MS });
  await workbench.showDebugConsole();
  await workbench.consoleRows.first().waitFor({ timeout: ANSWER_MS });
  await screenshot("fleet and console dark");
  await workbench.toggleTheme();
});

step("Fleet as text lists hosts and processes", async () => {
  await workbench.runCommand("RipTrace: Fleet as text");
  await browser.page.locator('.tab.active[aria-label^="RipTrace Fleet"]').waitFor({ timeout: ANSWER_MS });
  await browser.page
    .locator(".editor-instance .view-line", { hasText: /cart/ })
    .first()
    .waitFor({ timeout: ANSWER_MS });
  await screenshot("fleet");
});

step("Stop ends the session, and its tracepoints leave the fleet", async () => {
  await workbench.showDebugger();
  await workbench.pressDebugButton("disconnect");
  await workbench.debugButton("disconnect").waitFor({ state: "detached", timeout: ANSWER_MS });
  await workbench.showTimeline();
  await workbench.timeline.locator("#attach").waitFor({ timeout: ANSWER_MS });
  await workbench.showFleet();
  await workbench.fleetRow(/^Tracepointsnone/).waitFor({ timeout: FIRST_HIT_MS });
});

/** The number of the hit that the timeline shows. */
async function hitNumber() {
  return numberIn(await workbench.stopDescription(/Hit \d+/i));
}

/** Waits until the debugger shows this hit. */
async function hitNumberThatIs(number) {
  return numberIn(await workbench.stopDescription(new RegExp(`Hit ${number}\\b`, "i")));
}

/** As WCAG has it, of two colours `rgb(r, g, b)`: from 1 to 21. */
function contrast(one, other) {
  const luminance = (colour) => {
    const [r, g, b] = /\d+, \d+, \d+/.exec(colour)[0].split(", ").map((part) => {
      const share = Number(part) / 255;
      return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

async function hitNumberOtherThan(number) {
  return numberIn(await workbench.stopDescription(new RegExp(`Hit (?!${number}\\b)\\d+`, "i")));
}

function numberIn(description) {
  return Number(/\d+/.exec(description)[0]);
}
