/**
 * The extension through the vscode API, inside the real extension host: a second extension (driver/) does the checks.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { watch } from "node:fs";
import { access, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import {
  ANSWER_MS,
  artefacts,
  breakpoint,
  breakpointVariables,
  FIRST_HIT_MS,
  logpoint,
  nats,
  shop,
  within,
} from "../support.mjs";
import { openBrowser } from "./browser.mjs";
import { startCodeServer } from "./codeServer.mjs";

const run = promisify(execFile);
const driver = fileURLToPath(new URL("driver/", import.meta.url));
const vsce = fileURLToPath(new URL("../../../editors/vscode/node_modules/@vscode/vsce/vsce", import.meta.url));
/** The checks of the driver have deadlines of their own; this is their sum and the start of the workbench. */
const DRIVER_MS = 5 * FIRST_HIT_MS + 60_000;

test("the extension through the vscode API", async (t) => {
  await mkdir(artefacts, { recursive: true });
  const directory = await mkdtemp(path.join(tmpdir(), "riptrace-driver-"));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const vsix = path.join(directory, "driver.vsix");
  const flags = ["--no-dependencies", "--allow-missing-repository", "--skip-license", "--out", vsix];
  await run(process.execPath, [vsce, "package", ...flags], { cwd: driver, timeout: 120_000 });

  const result = path.join(directory, "result.json");
  process.env.RIPTRACE_DRIVER_TASK = JSON.stringify({
    result,
    nats,
    shop,
    breakpoint,
    logpoint,
    breakpointVariables,
    firstHitMs: FIRST_HIT_MS,
    answerMs: ANSWER_MS,
  });
  const server = await startCodeServer({ name: "vscode-api", extensions: [process.env.RIPTRACE_VSIX, vsix] });
  t.after(() => server.close());
  const browser = await openBrowser();
  t.after(() => browser.close());
  await browser.page.goto(`${server.url}/?folder=${encodeURIComponent(shop)}`, { timeout: DRIVER_MS });
  const stop = new AbortController();
  try {
    await within(DRIVER_MS, "the driver extension reports", appearance(result, stop.signal));
  } catch (error) {
    await browser.page.screenshot({ path: path.join(artefacts, "vscode-failed-api.png") });
    throw error;
  } finally {
    stop.abort();
  }

  const { results, messages } = JSON.parse(await readFile(result, "utf8"));
  await writeFile(path.join(artefacts, "vscode-api-messages.json"), JSON.stringify(messages, null, 1));
  assert.ok(results.length > 0);
  for (const { name, milliseconds, error } of results) {
    await t.test(`${name} (${milliseconds} ms)`, () => {
      if (error) throw new Error(error);
    });
  }
});

/** Resolves when the file is there. Until `signal`, the process cannot end: a watch that goes on keeps it. */
function appearance(file, signal) {
  return new Promise((resolve) => {
    const watcher = watch(path.dirname(file), { signal }, () => void look());
    const look = async () => {
      if (
        await access(file).then(
          () => true,
          () => false,
        )
      ) {
        watcher.close();
        resolve();
      }
    };
    void look();
  });
}
