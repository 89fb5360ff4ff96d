/**
 * Stands between VS Code and `riptrace dap` or `lsp` and writes down what they say: `tap.mjs LOG BINARY ARGUMENT..`.
 *
 * LOG.in has what the editor sent, LOG.out what the program sent, LOG.log its standard error. Bytes, ends and the exit
 * status are passed on as they are.
 */
import { spawn } from "node:child_process";
import { appendFileSync, openSync } from "node:fs";

const [log, binary, ...args] = process.argv.slice(2);
const child = spawn(binary, args, { stdio: ["pipe", "pipe", openSync(`${log}.log`, "a")] });
for (const [from, to, file] of [
  [process.stdin, child.stdin, `${log}.in`],
  [child.stdout, process.stdout, `${log}.out`],
]) {
  from.on("data", (chunk) => appendFileSync(file, chunk));
  from.pipe(to);
}
// The other end of a pipe may be gone before its last bytes are written: the exit status tells.
child.stdin.on("error", () => {});
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => child.kill(signal));
child.on("error", (error) => {
  process.stderr.write(`${binary}: ${error.message}\n`);
  process.exit(127);
});
child.on("close", (code, signal) => (signal ? process.kill(process.pid, "SIGKILL") : process.exit(code)));
