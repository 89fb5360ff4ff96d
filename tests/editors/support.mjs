/**
 * What every editor test shares: its inputs, the lines of the shop it uses, waiting with a deadline.
 *
 * Inputs come from the environment (run.sh checks and describes them): RIPTRACE_BIN, RIPTRACE_SHOP, RIPTRACE_NATS,
 * RIPTRACE_BP and RIPTRACE_LOGPOINT.
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

/** Packages of the provisioned tools: they are in the cache, outside of every lookup path of Node. */
export const requireTool = createRequire(path.join(required("RIPTRACE_EDITOR_TOOLS"), "node_modules", "_"));

export const binary = required("RIPTRACE_BIN");
export const shop = required("RIPTRACE_SHOP");
export const nats = required("RIPTRACE_NATS");

/** Screenshots, logs and transcripts; ignored by git. */
export const artefacts = fileURLToPath(new URL("../artefacts/", import.meta.url));

/** A line that the shop runs for every order, several times in one goroutine. */
export const breakpoint = location("RIPTRACE_BP", "cart/cart.go", "BP cart-add");
/** A second line, traced with a message; `expression` is a local variable there. */
export const logpoint = { ...location("RIPTRACE_LOGPOINT", "cart/cart.go", "BP cart-apply"), expression: "sum" };
/** Variables in scope at `breakpoint`. */
export const breakpointVariables = ["requestID", "quantity", "c", "line"];

/** How many times slower the browser is made: it may take that many times as long. What never comes is found all the same. */
export const SLOWDOWN = Number(process.env.RIPTRACE_BROWSER_SLOWDOWN ?? 1);
/** How long the first hits may take: arming in every process, one order of the load generator, batching, the merge. */
export const FIRST_HIT_MS = 60_000 * SLOWDOWN;
/** How long one answer to one action may take, on two cores that also compile. */
export const ANSWER_MS = 30_000 * SLOWDOWN;

function required(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: start the tests with tests/editors/run.sh`);
  return value;
}

/** `FILE:LINE` from the environment, else the line of the shop's source that ends with `// marker`. */
function location(variable, defaultFile, marker) {
  const given = process.env[variable];
  if (!given) return locationOf(defaultFile, marker);
  const match = /^(.+):(\d+)$/.exec(given);
  if (!match) throw new Error(`${variable} is '${given}': expected FILE:LINE`);
  return spot(match[1], (_, index) => index === Number(match[2]) - 1, `no line ${match[2]}`);
}

/** The line of the shop's source `file` that ends with `// marker`. */
export function locationOf(file, marker) {
  return spot(file, (text) => text.trimEnd().endsWith(`// ${marker}`), `no line that ends in '// ${marker}'`);
}

function spot(file, isIt, otherwise) {
  const lines = readFileSync(path.join(shop, file), "utf8").split("\n");
  const index = lines.findIndex(isIt);
  if (index < 0) throw new Error(`${path.join(shop, file)} has ${otherwise}`);
  return { file, path: path.join(shop, file), line: index + 1, text: lines[index] };
}

/** The promise's value, or an error that names what did not happen in time. */
export function within(milliseconds, what, promise) {
  let timer;
  const deadline = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${milliseconds} ms`)), milliseconds);
  });
  return Promise.race([promise, deadline]).finally(() => clearTimeout(timer));
}
