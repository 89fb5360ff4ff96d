import assert from "node:assert/strict";
import test from "node:test";
import { parseStatistics, statusText, statusTooltip } from "../src/statistics";

test("counts are shown", () => {
  const statistics = parseStatistics({ hits: 120, dropped: 0, hosts: 2, processes: 3, later: "ignored" });
  assert.ok(statistics);
  assert.equal(statusText(statistics), "$(pulse) 120 hits");
  assert.match(statusTooltip(statistics), /120 hits from 3 processes on 2 hosts/);
});

test("one of each is in the singular", () => {
  const statistics = { hits: 1, dropped: 0, hosts: 1, processes: 1 };
  assert.equal(statusText(statistics), "$(pulse) 1 hit");
  assert.match(statusTooltip(statistics), /1 hit from 1 process on 1 host\./);
});

test("dropped hits are always named", () => {
  const statistics = { hits: 5, dropped: 7, hosts: 1, processes: 1 };
  assert.equal(statusText(statistics), "$(pulse) 5 hits $(warning) 7 dropped");
  assert.match(statusTooltip(statistics), /7 hits dropped/);
});

for (const body of [
  undefined,
  null,
  "120",
  {},
  { hits: 1, dropped: 0, hosts: 1 },
  { hits: -1, dropped: 0, hosts: 1, processes: 1 },
  { hits: 1.5, dropped: 0, hosts: 1, processes: 1 },
  { hits: "1", dropped: 0, hosts: 1, processes: 1 },
]) {
  test(`${JSON.stringify(body)} is no statistics: nothing is shown`, () => {
    assert.equal(parseStatistics(body), undefined);
  });
}
