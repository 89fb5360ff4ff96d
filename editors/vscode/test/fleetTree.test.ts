import assert from "node:assert/strict";
import test from "node:test";
import { choicesOf } from "../src/configuration";
import { DecodeError } from "../src/decode";
import { lookOf } from "../src/fleet";
import { parseFleet, parsePs } from "../src/fleetModel";
import { fleetTree, type FleetNode } from "../src/fleetTree";
import { Rates } from "../src/rates";

const build = {
  id: "go:cart-1",
  language: "go",
  dwarf: true,
  go_version: "go1.27.3",
  module: "example.com/shop",
  vcs_revision: "0123456789abcdef0123",
  vcs_modified: true,
};

function probe(given: object = {}): Record<string, unknown> {
  return {
    ...{ tracepoint: "t-1", state: "armed", mechanism: "jump", reason: null, note: null },
    sites: [{ function: "cart.(*Cart).Add", file: "/src/shop/cart/cart.go", line: 42 }],
    ...{ passages: 120, hits: 100, dropped: 20, passages_per_s: 12, hits_per_s: 10 },
    ...given,
  };
}

function cartProcess(given: object = {}): Record<string, unknown> {
  return {
    ...{ pid: 812, start_time: 1, service: "cart", exe: "/srv/cart", build: build.id, container: null },
    ...{ labels: { env: "prod" }, refused: null, meant: true, probes: [probe()] },
    ...given,
  };
}

/** As the adapter answers `riptrace/fleet`. */
function answer(given: object = {}): Record<string, unknown> {
  return {
    ...{ session: "s", selector: "", revision: 7, builds: [{ ...build, processes: 1 }] },
    hosts: [
      {
        ...{ host: "web-1", alive: true, version: "0.1.0", kernel: "6.12.0", labels: {}, clock_uncertainty_ns: 41_000 },
        processes: [cartProcess()],
      },
    ],
    tracepoints: [
      {
        ...{ id: "t-1", location: "cart/cart.go:42", own: true, breakpoint: 1, log: false, ended: null },
        ...{ path: "/home/ana/shop/cart/cart.go", line: 40 },
      },
    ],
    ...given,
  };
}

const tree = (value: unknown, rates = new Rates()): readonly FleetNode[] => fleetTree(parseFleet(value), rates);

function find(nodes: readonly FleetNode[], id: string): FleetNode {
  const all = nodes.flatMap((node): FleetNode[] => [node, ...node.children.flatMap((child) => [child, ...child.children])]);
  const found = all.find((node) => node.id === id);
  assert.ok(found, `no node '${id}' among ${all.map((node) => node.id).join("; ")}`);
  return found;
}

test("a fleet is tracepoints, hosts and builds", () => {
  assert.deepEqual(
    tree(answer()).map(({ label, description }) => `${label} ${description}`),
    ["Tracepoints 1", "Hosts 1", "Builds 1"],
  );
});

test("a tracepoint says where it is armed, its hits, rate and drops, and leads to the local line", () => {
  const node = find(tree(answer()), "tracepoint t-1");
  assert.equal(node.label, "cart/cart.go:42");
  assert.equal(node.description, "armed 1/1, 100 hits, 10/s, 20 dropped");
  assert.deepEqual(node.source, { file: "/home/ana/shop/cart/cart.go", line: 40 });
  assert.equal(node.own, true);
  assert.equal(node.icon.color, "charts.red");
});

test("a probe says its mechanism, what that costs, and its places", () => {
  const node = find(tree(answer()), "probe t-1 web-1 812");
  assert.equal(node.label, "cart on web-1");
  assert.equal(node.description, "armed by jump, 100 hits, 10/s, 20 dropped");
  assert.match(node.tooltip, /tens of nanoseconds/);
  assert.equal(node.selector, "host=web-1,pid=812");
  assert.deepEqual(node.children[0]?.source, { file: "/src/shop/cart/cart.go", line: 42 });
});

test("why a probe could not be armed is shown, and makes the tracepoint a warning that is open", () => {
  const refused = probe({ state: "refused", mechanism: null, sites: [], reason: "the line is in no function", hits: 0 });
  const value = answer();
  (value["hosts"] as { processes: object[] }[])[0]?.processes.push(cartProcess({ pid: 9, probes: [refused] }));
  const nodes = tree(value);
  assert.match(find(nodes, "probe t-1 web-1 9").description, /^refused, .*the line is in no function$/);
  const tracepoint = find(nodes, "tracepoint t-1");
  assert.match(tracepoint.description, /armed 1\/2/);
  assert.equal(tracepoint.icon.name, "warning");
  assert.equal(tracepoint.open, true);
});

test("a tracepoint that has ended says why", () => {
  const tracepoints = [{ id: "t-1", location: "main.main:return", own: false, ended: "500 hits were asked for" }];
  const node = find(tree(answer({ tracepoints })), "tracepoint t-1");
  assert.match(node.description, /^500 hits were asked for/);
  assert.match(node.tooltip, /of another session/);
  assert.equal(node.own, undefined);
  // A function is where its first place is.
  assert.deepEqual(node.source, { file: "/src/shop/cart/cart.go", line: 42 });
});

test("a silent host, and a process that cannot be traced, are seen as such", () => {
  const value = answer();
  const host = (value["hosts"] as Record<string, unknown>[])[0] as Record<string, unknown>;
  Object.assign(host, { alive: false, clock_uncertainty_ns: null });
  host["processes"] = [cartProcess({ refused: "owned by another user" })];
  const nodes = tree(value);
  assert.equal(find(nodes, "host web-1").description, "silent, 1 process, clock not known yet");
  assert.equal(find(nodes, "process web-1 812").description, "812, cannot be traced: owned by another user");
});

test("a build is shown once, with its revision and where it runs", () => {
  const value = answer();
  (value["hosts"] as { processes: object[] }[])[0]?.processes.push(cartProcess({ pid: 9, probes: [] }));
  const node = find(tree(value), "build go:cart-1");
  assert.equal(node.description, "go1.27.3, 0123456789ab with changes, 2 processes");
  assert.deepEqual(
    node.children.map(({ description }) => description),
    ["812 on web-1", "9 on web-1"],
  );
});

test("each node has an id of its own", () => {
  const ids: string[] = [];
  const walk = (nodes: readonly FleetNode[]): void =>
    nodes.forEach((node) => {
      ids.push(node.id);
      walk(node.children);
    });
  walk(tree(answer()));
  assert.equal(new Set(ids).size, ids.length);
});

for (const [name, value, expected] of [
  ["no object", "x", /fleet must be an object/],
  ["a host without a name", answer({ hosts: [{ alive: true, processes: [] }] }), /hosts\[0\]\.host must be a text/],
  ["a state that is none", answer({ hosts: [{ host: "a", processes: [cartProcess({ probes: [probe({ state: "x" })] })] }] }), /state is 'x'/],
  ["an unknown build", answer({ builds: [] }), /'go:cart-1', which is not among the builds/],
  ["a negative count", answer({ hosts: [{ host: "a", processes: [cartProcess({ probes: [probe({ hits: -1 })] })] }] }), /hits must be a whole number/],
] as const) {
  test(`${name} is an error that names the place`, () => {
    assert.throws(
      () => parseFleet(value),
      (error) => error instanceof DecodeError && expected.test(error.message),
    );
  });
}

const ps = [
  { type: "host", host: "web-1", alive: true, version: "0.1.0", kernel: "6.12.0", labels: {}, clock_uncertainty_ns: null },
  { type: "process", ...cartProcess(), host: "web-1", build },
  { type: "tracepoint", tracepoint: "t-1", location: "cart/cart.go:42", ended: null },
  { type: "status", ...probe(), host: "web-1", pid: 812, service: "cart", sites: 1, places: probe()["sites"], hits_per_s: undefined },
  { type: "news", of: "a later version" },
];
const lines = (values: object[]): string => values.map((value) => `${JSON.stringify(value)}\n`).join("");

test("the lines of ps are the same fleet, and rates come from two looks", () => {
  const rates = new Rates();
  const look = (hits: number, atMs: number): FleetNode => {
    const fleet = parsePs(lines([...ps.slice(0, 3), { ...ps[3], hits }]));
    rates.look(fleet, atMs);
    return find(fleetTree(fleet, rates), "tracepoint t-1");
  };
  assert.equal(look(100, 1_000).description, "armed 1/1, 100 hits, 20 dropped");
  assert.equal(look(130, 11_000).description, "armed 1/1, 130 hits, 3/s, 20 dropped");
  // Too soon to say anything new.
  assert.match(look(130, 11_100).description, /3\/s/);
  // Armed anew: the counts begin again.
  assert.equal(look(5, 20_000).description, "armed 1/1, 5 hits, 20 dropped");
  assert.equal(look(5, 30_000).description, "armed 1/1, 5 hits, 0/s, 20 dropped");
});

test("a fleet without a process that can be traced is a fleet", () => {
  const look = lookOf(3, lines([ps[0] as object]), "riptrace: 1 hosts, and none runs a process that can be traced\n");
  assert.equal(look.kind, "fleet");
});

test("what is no answer of ps is a problem in words", () => {
  const look = lookOf(0, "HOST PID\n", "");
  assert.match(look.kind === "problem" ? look.problem : "", /line 1 is not JSON: HOST PID.*as new as this extension/);
  assert.match(JSON.stringify(lookOf(4, "", "riptrace: no fleet at nats://x: run 'riptrace up'\n")), /run 'riptrace up'/);
});

test("each service and each host can be chosen to be attached to", () => {
  const choices = choicesOf(parsePs(lines(ps)));
  assert.deepEqual(
    choices.map(({ name, selector }) => [name, selector]),
    [
      ["RipTrace: attach to the fleet", undefined],
      ["RipTrace: cart", "service=cart"],
      ["RipTrace: all of host web-1", "host=web-1"],
    ],
  );
});
