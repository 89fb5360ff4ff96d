/**
 * `riptrace dap` on stdio under Microsoft's DebugClient, with every event kept in the order of arrival.
 */
import { spawn } from "node:child_process";
import { openSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { ANSWER_MS, artefacts, binary, requireTool, shop, within } from "../support.mjs";

const { DebugClient } = requireTool("@vscode/debugadapter-testsupport");

export class Adapter {
  /** Every event so far, in order. */
  events = [];
  #waiting = new Set();

  /** Starts an adapter; its standard error goes to a file among the artefacts. */
  static async start(name) {
    await mkdir(artefacts, { recursive: true });
    const adapter = new Adapter();
    adapter.log = path.join(artefacts, `testsupport-${name}.log`);
    const stderr = openSync(adapter.log, "w");
    adapter.process = spawn(binary, ["dap"], { cwd: shop, stdio: ["pipe", "pipe", stderr] });
    adapter.ended = new Promise((resolve) => {
      adapter.process.once("close", (code, signal) => resolve({ code, signal }));
    });
    adapter.client = new DebugClient("", "", "riptrace");
    const emit = adapter.client.emit.bind(adapter.client);
    adapter.client.emit = (kind, message) => {
      if (message?.type === "event") adapter.#arrived(message);
      return emit(kind, message);
    };
    adapter.client.connect(adapter.process.stdout, adapter.process.stdin);
    return adapter;
  }

  /** The body of the response; a refused request or a missed deadline is an error that names the request. */
  async request(command, args, milliseconds = ANSWER_MS) {
    const response = await this.#within(milliseconds, `the response to ${command}`, this.client.send(command, args));
    return response.body ?? {};
  }

  /** The error message that refuses a request; an error when it is not refused. */
  async refusal(command, args) {
    const response = await this.#within(
      ANSWER_MS,
      `the response to ${command}`,
      this.client.send(command, args).catch((error) => ({ refused: error.message })),
    );
    if (response.refused === undefined) throw new Error(`${command} was accepted: ${JSON.stringify(response.body)}`);
    return response.refused;
  }

  /** The first event of this kind from position `from` on whose body suits; waits for it. */
  event(kind, suits, { from = 0, milliseconds = ANSWER_MS } = {}) {
    const matches = (message) => message.event === kind && suits(message.body ?? {});
    const there = this.events.slice(from).find(matches);
    if (there) return Promise.resolve(there.body);
    let waiter;
    const arrival = new Promise((resolve) => {
      waiter = { matches, resolve };
      this.#waiting.add(waiter);
    });
    const what = `event ${kind} where ${suits} (kinds so far: ${[...new Set(this.events.map((e) => e.event))].join(", ")})`;
    return this.#within(milliseconds, what, arrival).finally(() => this.#waiting.delete(waiter));
  }

  /** Does something and returns the `stopped` event that follows from it. */
  async stopAfter(action) {
    const from = this.events.length;
    await action();
    return this.event("stopped", () => true, { from });
  }

  /** Ends the process if a test did not. */
  kill() {
    this.process.kill("SIGKILL");
  }

  /** As `within`, and an error at once when the process has ended. */
  #within(milliseconds, what, promise) {
    const ended = this.ended.then(({ code, signal }) => {
      throw new Error(`${what}: the adapter has ended (${signal ?? `exit status ${code}`}); its log: ${this.log}`);
    });
    return within(milliseconds, what, Promise.race([promise, ended]));
  }

  #arrived(message) {
    this.events.push(message);
    for (const waiter of this.#waiting) {
      if (waiter.matches(message)) waiter.resolve(message.body);
    }
  }
}
