import assert from "node:assert/strict";
import test from "node:test";
import { childEnvironment } from "../src/environment";
import { reportOf, showFleet } from "../src/fleet";

test("a fleet is shown as it was printed, with the notes beside it", () => {
  assert.deepEqual(reportOf(0, "HOST  PID\nweb-1 812\n", "note: one agent is old\n"), {
    text: "HOST  PID\nweb-1 812\nnote: one agent is old",
    problem: undefined,
  });
});

test("the program's own last words are the error", () => {
  const report = reportOf(
    4,
    "",
    "connecting to nats://127.0.0.1:1\nno fleet at nats://127.0.0.1:1: run 'riptrace up'\n",
  );
  assert.equal(report.problem, "RipTrace: no fleet at nats://127.0.0.1:1: run 'riptrace up'");
});

test("an unreachable fleet without words still says what to do", () => {
  assert.match(reportOf(4, "", "").problem ?? "", /riptrace up/);
});

test("any other silent end is named", () => {
  assert.match(reportOf("ENOENT", "", "").problem ?? "", /ended with ENOENT/);
});

const query = { cwd: undefined, env: process.env, creds: undefined };

test("the command is run with ps and its output comes back", async () => {
  assert.deepEqual(await showFleet({ ...query, binary: "/bin/echo" }), { text: "ps", problem: undefined });
});

test("the credentials of the session are handed over", async () => {
  const report = await showFleet({ ...query, binary: "/bin/echo", creds: "/secret dir/dev.creds" });
  assert.equal(report.text, "ps --creds /secret dir/dev.creds");
});

test("a binary that is not there is a problem, not an exception", async () => {
  assert.match((await showFleet({ ...query, binary: "/nowhere/riptrace" })).problem ?? "", /ENOENT/);
});

test("an exit status is told from a missing binary", async () => {
  assert.match((await showFleet({ ...query, binary: "/bin/false" })).problem ?? "", /ended with 1/);
});

test("NATS_URL is set from the setting only where there is one", () => {
  assert.deepEqual(childEnvironment({ A: "1", NATS_URL: "nats://old" }, ""), { A: "1", NATS_URL: "nats://old" });
  assert.deepEqual(childEnvironment({ A: "1", NATS_URL: "nats://old" }, " nats://new "), {
    A: "1",
    NATS_URL: "nats://new",
  });
});
