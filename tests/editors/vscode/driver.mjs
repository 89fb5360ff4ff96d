/**
 * The driver extension (driver/) from outside: packs it, starts a workbench with it and ours, waits for what it reports.
 */
import { execFile } from "node:child_process";
import { watch } from "node:fs";
import { access, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { ANSWER_MS, artefacts, FIRST_HIT_MS, nats, shop, within } from "../support.mjs";
import { openBrowser } from "./browser.mjs";
import { startCodeServer } from "./codeServer.mjs";

const run = promisify(execFile);
const folder = fileURLToPath(new URL("driver/", import.meta.url));
const vsce = fileURLToPath(new URL("../../../editors/vscode/node_modules/@vscode/vsce/vsce", import.meta.url));
const PACK_MS = 120_000;
/** A cold workbench loads its modules one by one, then its extension host starts. */
const START_MS = 120_000;

/**
 * Opens a workbench in which the driver does `checks`. `name` is what its artefacts begin with,
 * `task(directory)` what the checks are to know, `how` what `startCodeServer` takes. Returns
 * `{ directory, page, result, close }`: a temporary directory, the browser's page, and a function that waits for what
 * the driver reports.
 */
export async function startDriver({ name, checks, task, ...how }) {
  await mkdir(artefacts, { recursive: true });
  const directory = await mkdtemp(path.join(tmpdir(), "riptrace-driver-"));
  const opened = [() => rm(directory, { recursive: true, force: true })];
  const close = async () => {
    for (const end of opened.reverse()) await end();
  };
  try {
    const vsix = path.join(directory, "driver.vsix");
    const flags = ["--no-dependencies", "--allow-missing-repository", "--skip-license", "--out", vsix];
    await run(process.execPath, [vsce, "package", ...flags], { cwd: folder, timeout: PACK_MS });
    await writeFile(path.join(directory, "riptrace.toml"), "");
    const files = { result: path.join(directory, "result.json"), progress: path.join(directory, "progress") };
    process.env.RIPTRACE_DRIVER_TASK = JSON.stringify({
      checks,
      ...files,
      ...{ directory, nats, shop },
      ...{ firstHitMs: FIRST_HIT_MS, answerMs: ANSWER_MS },
      ...task(directory),
    });
    const server = await startCodeServer({ name, extensions: [process.env.RIPTRACE_VSIX, vsix], ...how });
    opened.push(() => server.close());
    const browser = await openBrowser();
    opened.push(() => browser.close());
    const { page } = browser;
    await page.goto(`${server.url}/?folder=${encodeURIComponent(shop)}`, { timeout: START_MS });

    /** As `within`, and a picture when it does not happen. */
    const seen = async (milliseconds, what, promise) => {
      try {
        return await within(milliseconds, what, promise);
      } catch (error) {
        const picture = path.join(artefacts, `${name.replace(/^vscode/, "vscode-failed")}.png`);
        await page.screenshot({ path: picture });
        const last = await readFile(files.progress, "utf8").catch(() => "none has begun");
        throw new Error(`${error.message}; the driver's last check: ${last.trim()}; a picture is in ${picture}`);
      }
    };
    await seen(START_MS, "the driver extension begins with its checks", appearance(files.progress));
    const result = async (milliseconds) => {
      await seen(milliseconds, "the driver extension reports", appearance(files.result));
      const { messages, ...rest } = JSON.parse(await readFile(files.result, "utf8"));
      await writeFile(path.join(artefacts, `${name}-messages.json`), JSON.stringify(messages, null, 1));
      if (rest.results.some(({ error }) => error)) {
        await page.screenshot({ path: path.join(artefacts, `${name.replace(/^vscode/, "vscode-failed")}.png`) });
      }
      return rest;
    };
    return { directory, page, result, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Resolves when the file is there. */
export function appearance(file) {
  return new Promise((resolve) => {
    // A watch that goes on would keep the process: it is no reason to.
    const watcher = watch(path.dirname(file), { persistent: false }, () => void look());
    const look = async () => {
      const there = await access(file).then(
        () => true,
        () => false,
      );
      if (there) {
        watcher.close();
        resolve();
      }
    };
    void look();
  });
}
