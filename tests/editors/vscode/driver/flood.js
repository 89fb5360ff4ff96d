/**
 * A session that gets far more hits than anybody reads: starts it, and when all are sent pages through all of them.
 *
 * The test that runs beside it (flood.test.mjs) learns from the file `task.armed` that orders may be sent, says by the
 * file `task.sent` how many hits they must have made, and reads what was found in the file `task.found`.
 */
const assert = require("node:assert/strict");
const fs = require("node:fs");
const vscode = require("vscode");

/** Hits in one page, at most: the adapter's own limit. */
const PAGE_HITS = 500;
const POLL_MS = 250;

module.exports = ({ task, check, eventually, started, ended, ask, onMessage }) => {
  let session;
  let sent;
  /** Rows of hits in the Debug Console, and hits that the adapter has counted in a row instead. */
  let rows = 0;
  let counted = 0;
  onMessage((direction, said) => {
    if (direction !== "out" || said.event !== "output") return;
    if (said.body.variablesReference > 0) rows += 1;
    counted += Number(/^(\d+) more hits? /.exec(said.body.output)?.[1] ?? 0);
  });

  check(
    "a session is armed",
    async () => {
      const { path, line } = task.breakpoint;
      const location = new vscode.Location(vscode.Uri.file(path), new vscode.Position(line - 1, 0));
      const message = "request={requestID} quantity={quantity}";
      vscode.debug.addBreakpoints([new vscode.SourceBreakpoint(location, true, undefined, undefined, message)]);
      // Where the keys are typed: nothing of the shop.
      await vscode.window.showTextDocument(await vscode.workspace.openTextDocument({ content: "" }));
      const armed = eventually(
        "the logpoint is armed",
        (_, said) => said?.event === "breakpoint" && /armed in/.test(said.body.breakpoint.message ?? ""),
        task.firstHitMs,
      );
      session = await started({ type: "riptrace", request: "attach", name: "flood", rate: "none", stopOnHit: false });
      await armed;
      fs.writeFileSync(task.armed, "");
    },
    2 * task.firstHitMs,
  );

  check(
    "all orders are sent",
    async () => {
      const there = () => fs.existsSync(task.sent) && JSON.parse(fs.readFileSync(task.sent, "utf8"));
      sent = await eventually("the test has sent all orders", there, task.floodMs, POLL_MS);
    },
    task.floodMs,
  );

  check(
    "each hit is on a page of the timeline",
    async () => {
      let seen;
      await eventually(
        `${sent.hits} hits have come or are counted as dropped`,
        async () => {
          seen = await ask(session, "riptrace/statistics");
          return seen.hits + seen.dropped >= sent.hits;
        },
        task.firstHitMs,
        POLL_MS,
      ).catch((error) => {
        throw new Error(`${error.message}: ${JSON.stringify(seen)}`);
      });
      const orders = new Map();
      const pages = { pages: 0, hits: 0, found: 0, slowestMs: 0 };
      let newest = 0;
      for (let from = 1; from !== null;) {
        const began = performance.now();
        const page = await ask(session, "riptrace/timelinePage", { from, count: PAGE_HITS });
        pages.slowestMs = Math.max(pages.slowestMs, performance.now() - began);
        for (const { seq, label } of page.hits) {
          assert.ok(seq > newest, `hit ${seq} comes after hit ${newest}`);
          newest = seq;
          const request = /request="?([\w-]+)/.exec(label)?.[1];
          if (request?.startsWith(task.marker)) {
            orders.set(request, (orders.get(request) ?? 0) + 1);
            pages.found += 1;
          }
        }
        pages.pages += 1;
        pages.hits += page.hits.length;
        from = page.next;
      }
      const statistics = await ask(session, "riptrace/statistics");
      // The rows of the last second are counted when it is over.
      await eventually(
        "each hit has a row or is counted in one",
        () => rows + counted >= statistics.hits,
        task.answerMs,
        POLL_MS,
      );
      const found = { ...pages, orders: [...orders.values()], rows, counted, statistics };
      fs.writeFileSync(`${task.found}.partial`, JSON.stringify(found));
      fs.renameSync(`${task.found}.partial`, task.found);
    },
    3 * task.firstHitMs,
  );

  check("Stop ends the session", () => ended(session), 2 * task.answerMs);
};
