import assert from "node:assert/strict";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import test from "node:test";
import { AdapterProcess } from "../src/adapterProcess";

/** How long a process of two lines may take on a busy machine. */
const DEADLINE_MS = 20_000;

const directory = mkdtempSync(path.join(tmpdir(), "riptrace-adapter-"));
test.after(() => rmSync(directory, { recursive: true, force: true }));

interface Seen {
  messages: Record<string, unknown>[];
  log: string[];
  end: string[];
}

/** Starts an adapter that is this JavaScript, with `answer(request)` and `read` to help it. */
function start(
  name: string,
  body: string,
): { adapter: AdapterProcess; seen: Seen; until: (what: string, holds: () => boolean) => Promise<void> } {
  const binary = path.join(directory, name);
  const helpers = `
    const send = (m) => { const t = JSON.stringify(m); process.stdout.write("Content-Length: " + Buffer.byteLength(t) + "\\r\\n\\r\\n" + t); };
    const answer = (r) => send({ seq: 1, type: "response", request_seq: r.seq, command: r.command, success: true });
    const read = (on) => { let b = ""; process.stdin.setEncoding("utf8").on("data", (d) => { b += d; for (;;) {
      const m = /^Content-Length: (\\d+)\\r\\n\\r\\n/.exec(b); if (!m || b.length < m[0].length + Number(m[1])) return;
      const t = b.slice(m[0].length, m[0].length + Number(m[1])); b = b.slice(m[0].length + Number(m[1])); on(JSON.parse(t)); } }); };`;
  writeFileSync(binary, `#!${process.execPath}\n${helpers}\n${body}\n`);
  chmodSync(binary, 0o755);
  return launch(binary);
}

function launch(binary: string): ReturnType<typeof start> {
  const seen: Seen = { messages: [], log: [], end: [] };
  const watchers = new Set<() => void>();
  const changed = (): void => watchers.forEach((watcher) => watcher());
  const adapter = new AdapterProcess(binary, directory, {
    onMessage: (message) => {
      seen.messages.push(message as Record<string, unknown>);
      changed();
    },
    onLog: (line) => {
      seen.log.push(line);
      changed();
    },
    onEnd: (how) => {
      seen.end.push(how);
      changed();
    },
  });
  const until = (what: string, holds: () => boolean): Promise<void> =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        if (holds()) {
          clearTimeout(timer);
          watchers.delete(look);
          resolve();
        }
      };
      const timer = setTimeout(
        () => reject(new Error(`${what}: not in time; seen: ${JSON.stringify(seen)}`)),
        DEADLINE_MS,
      );
      watchers.add(look);
      look();
    });
  return { adapter, seen, until };
}

const request = (seq: number, command: string): object => ({ seq, type: "request", command });

test("messages go both ways, and the log is kept apart", async () => {
  const { adapter, seen, until } = start("echo", `read(answer); console.error("hello\\nfrom stderr");`);
  adapter.send(request(1, "initialize"));
  adapter.send(request(2, "attach"));
  await until("two answers and two lines", () => seen.messages.length === 2 && seen.log.length === 2);
  assert.deepEqual(seen.log, ["hello", "from stderr"]);
  assert.deepEqual(
    seen.messages.map((message) => message["request_seq"]),
    [1, 2],
  );
  adapter.dispose();
  await until("its end", () => seen.end.length === 1);
  assert.equal(seen.end[0], "exit status 0");
  assert.equal(seen.messages.length, 2, "nothing is told after an end that was asked for");
});

test("an adapter that dies answers what it owes with its last words, and ends the session", async () => {
  const { adapter, seen, until } = start(
    "dies",
    `read(() => { console.error("no NATS at {url}"); process.exitCode = 4; process.stdin.destroy(); });`,
  );
  adapter.send(request(7, "initialize"));
  await until("the end of the session", () => seen.messages.some((message) => message["event"] === "terminated"));
  const [refusal] = seen.messages;
  assert.equal(refusal?.["request_seq"], 7);
  assert.equal(refusal?.["success"], false);
  assert.match(String(refusal?.["message"]), /exit status 4.*no NATS at/);
  adapter.send(request(8, "threads"));
  assert.equal(seen.messages.at(-1)?.["request_seq"], 8, "later requests are refused at once");
  assert.equal(seen.end.length, 1);
});

test("a program that is no adapter is told by what it said", async () => {
  const { adapter, seen, until } = start(
    "prints",
    `console.log("Usage: riptrace [COMMAND]\\r\\n\\r\\n"); read(answer);`,
  );
  adapter.send(request(1, "initialize"));
  await until("a refusal", () => seen.messages.some((message) => message["request_seq"] === 1));
  assert.match(String(seen.messages[0]?.["message"]), /does not speak the debug adapter protocol.*Usage: riptrace/);
});

test("a binary that is not there is a refusal, not a hang", async () => {
  const { adapter, seen, until } = launch("/nowhere/riptrace");
  adapter.send(request(1, "initialize"));
  await until("a refusal", () => seen.messages.some((message) => message["request_seq"] === 1));
  assert.match(String(seen.messages[0]?.["message"]), /ENOENT/);
});

test("an adapter that ignores the end of its input is ended", async () => {
  const { adapter, seen, until } = start("stays", `read(answer); setInterval(() => {}, 1000);`);
  adapter.send(request(1, "initialize"));
  await until("an answer", () => seen.messages.length === 1);
  adapter.dispose();
  await until("its end", () => seen.end.length === 1);
  assert.equal(seen.end[0], "SIGTERM");
});
