/**
 * Orders for the shop of the fleet that make many hits for little work.
 */
import { execFile } from "node:child_process";
import { readdir, readFile, readlink } from "node:fs/promises";
import http from "node:http";
import { promisify } from "node:util";
import { binary, nats } from "./support.mjs";

const run = promisify(execFile);
const PS_MS = 30_000;

/** `{ host, port }` of the shop's gateway: the address on which that process of the fleet listens. */
export async function gatewayAddress() {
  const { stdout } = await run(binary, ["ps", "--json", "--nats", nats], { timeout: PS_MS });
  const lines = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const gateway = lines.find(({ type, service }) => type === "process" && service === "gateway");
  if (!gateway) throw new Error(`no process of the fleet at ${nats} is the service 'gateway'`);
  // Its own sockets among those of its network.
  const sockets = new Set();
  for (const descriptor of await readdir(`/proc/${gateway.pid}/fd`)) {
    const target = await readlink(`/proc/${gateway.pid}/fd/${descriptor}`).catch(() => "");
    const inode = /^socket:\[(\d+)\]$/.exec(target)?.[1];
    if (inode) sockets.add(inode);
  }
  for (const line of (await readFile(`/proc/${gateway.pid}/net/tcp`, "utf8")).split("\n").slice(1)) {
    const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
    if (state !== "0A" || !sockets.has(inode)) continue;
    const [address, port] = local.split(":");
    return { host: Buffer.from(address, "hex").reverse().join("."), port: Number.parseInt(port, 16) };
  }
  throw new Error(`the process ${gateway.pid} (gateway) listens nowhere`);
}

/** Lines of an order that go into the cart; each is a hit. Five products, and no more than 100 items of each. */
export const HITS_PER_ORDER = 50;
const SKUS = ["apple", "bread", "coffee", "honey", "tea"];
const LINES = Array.from({ length: HITS_PER_ORDER }, (_, n) => ({ sku: SKUS[n % SKUS.length], quantity: 1 + (n % 9) }));

/**
 * Sends orders at a steady rate for some time: `hitsPerS` is what they make. An order's last line has no items, so that
 * the cart refuses the order when it is full and no other service has work. Resolves to how many were sent, once each
 * was answered. `marker` begins their request ids.
 */
export async function sendOrders({ host, port }, { marker, hitsPerS, seconds }) {
  const body = JSON.stringify({ customer: "flood", lines: [...LINES, { sku: "tea", quantity: 0 }] });
  const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
  const orders = Math.round((hitsPerS * seconds) / HITS_PER_ORDER);
  const began = performance.now();
  const under = [];
  for (let n = 0; n < orders; n += 1) {
    const due = began + (n * HITS_PER_ORDER * 1000) / hitsPerS;
    const pause = due - performance.now();
    if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause));
    under.push(sendOrder({ host, port, agent }, `${marker}-${n}`, body));
  }
  await Promise.all(under);
  agent.destroy();
  return { orders, hits: orders * HITS_PER_ORDER, seconds: (performance.now() - began) / 1000 };
}

function sendOrder(where, requestId, body) {
  return new Promise((resolve, reject) => {
    const headers = { "Content-Type": "application/json", "X-Request-Id": requestId };
    const request = http.request({ ...where, path: "/checkout", method: "POST", headers, timeout: PS_MS }, (answer) => {
      let text = "";
      answer.setEncoding("utf8").on("data", (part) => (text += part));
      answer.on("end", () => {
        // The gateway says with 502 what the cart has refused.
        if (/0 items/.test(text)) resolve();
        else reject(new Error(`the order ${requestId} was answered ${answer.statusCode}: ${text}`));
      });
    });
    request.on("timeout", () => request.destroy(new Error(`the order ${requestId} was not answered in ${PS_MS} ms`)));
    request.on("error", reject);
    request.end(body);
  });
}
