/**
 * A headless Chromium with an empty profile, driven by playwright.
 */
import { requireTool, SLOWDOWN } from "../support.mjs";

/** What a container without a GPU, a sandbox and a network needs. */
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-dev-shm-usage",
];
const LAUNCH_MS = 120_000;

/** Returns `{ page, close }`. */
export async function openBrowser() {
  const executablePath = process.env.RIPTRACE_CHROMIUM;
  if (!executablePath) throw new Error("RIPTRACE_CHROMIUM is not set: start the tests with tests/editors/run.sh");
  const { chromium } = requireTool("playwright-core");
  const browser = await chromium.launch({ executablePath, args: FLAGS, headless: true, timeout: LAUNCH_MS });
  const page = await browser.newPage({ viewport: { width: 1600, height: 1000 } });
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Emulation.setCPUThrottlingRate", { rate: SLOWDOWN });
  return { page, close: () => browser.close() };
}
