import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import {
  ATTACH_ARGUMENTS,
  LAUNCH_ARGUMENTS,
  DEBUG_TYPE,
  DEFAULT_NAME,
  problemOf,
  withDefaults,
  withSettings,
  type Configuration,
} from "../src/configuration";

interface Manifest {
  contributes: {
    breakpoints: { language: string }[];
    commands: { command: string }[];
    configuration: { properties: Record<string, unknown> };
    debuggers: {
      type: string;
      languages: string[];
      configurationAttributes: Record<string, { properties: Record<string, Record<string, unknown>> }>;
      initialConfigurations: Configuration[];
      configurationSnippets: { label: string; description: string; body: Configuration }[];
    }[];
  };
}

// The tests run in the extension's folder.
const manifest = JSON.parse(readFileSync("package.json", "utf8")) as Manifest;
const contributed = manifest.contributes.debuggers[0];
assert.ok(contributed);

const plain: Configuration = { type: "riptrace", request: "attach", name: "x" };

test("F5 without a launch.json attaches to the fleet", () => {
  assert.deepEqual(withDefaults({}), {
    type: DEBUG_TYPE,
    request: "attach",
    name: DEFAULT_NAME,
    cwd: "${workspaceFolder}",
  });
});

test("F5 keeps what VS Code adds to an empty configuration", () => {
  assert.equal(withDefaults({ noDebug: false })["noDebug"], false);
});

test("a configuration keeps what it says", () => {
  const given = { type: "riptrace", request: "attach", name: "cart", selector: "service=cart", cwd: "/code" };
  assert.deepEqual(withDefaults(given), given);
});

test("a wrong request is kept, so that it can be reported", () => {
  assert.equal(withDefaults({ type: "riptrace", request: "launch", name: "x" }).request, "launch");
});

test("the setting gives the NATS URL where the configuration gives none", () => {
  assert.equal(withSettings(plain, { nats: "nats://a:4222" })["nats"], "nats://a:4222");
  assert.equal(withSettings({ ...plain, nats: "nats://b:4222" }, { nats: "nats://a:4222" })["nats"], "nats://b:4222");
  assert.equal("nats" in withSettings(plain, { nats: "  " }), false);
});

test("a saved session needs its file alone, and no fleet", () => {
  const saved = { type: "riptrace", request: "launch", name: "x", recording: "/a.riptrace", correlate: ["requestID"] };
  assert.equal(problemOf(saved), undefined);
  assert.deepEqual(withSettings(saved, { nats: "nats://a:4222" }), saved);
});

test("a right configuration has no problem", () => {
  const full = {
    ...plain,
    nats: "nats://a:4222",
    creds: "/c",
    selector: "host=web-*, service=cart,exe=*/cartd,module=example.com/shop,label.env=prod,pid=12",
    substitutePath: [{ from: "/a", to: "/b" }],
    stopOnHit: false,
    rate: 5,
    cwd: "/code",
  };
  assert.equal(problemOf(plain), undefined);
  assert.equal(problemOf(full), undefined);
  assert.equal(problemOf({ ...plain, rate: "none", selector: "", substitutePath: [] }), undefined);
});

const wrong: [string, Record<string, unknown>, RegExp][] = [
  ["request", { request: "join" }, /write "attach".*or "launch"/],
  ["launch without a file", { request: "launch" }, /file as "recording"/],
  ["correlate", { correlate: 7 }, /"correlate" must be an expression/],
  ["nats", { nats: 4222 }, /"nats" must be a text, not 4222/],
  ["stopOnHit", { stopOnHit: "yes" }, /"stopOnHit" must be true or false, not "yes"/],
  ["rate of zero", { rate: 0 }, /"rate" must be a whole number/],
  ["rate with a fraction", { rate: 0.5 }, /"rate" must be a whole number/],
  ["rate in words", { rate: "many" }, /or "none", not "many"/],
  ["substitutePath", { substitutePath: { from: "/a", to: "/b" } }, /"substitutePath" must be a list/],
  ["substitutePath entry", { substitutePath: [{ from: "/a" }] }, /"substitutePath" must be a list/],
  ["substitutePath null", { substitutePath: [null] }, /"substitutePath" must be a list/],
  ["selector key", { selector: "service=cart,node=3" }, /term 'node=3'.*label\.NAME=/],
  ["selector without a value", { selector: "service=" }, /term 'service='/],
];
for (const [name, change, expected] of wrong) {
  test(`a wrong ${name} is named with what to write instead`, () => {
    assert.match(problemOf({ ...plain, ...change }) ?? "no problem", expected);
  });
}

test("the schema of launch.json offers every attach argument, described, and no other", () => {
  const properties = contributed.configurationAttributes["attach"]?.properties ?? {};
  assert.deepEqual(Object.keys(properties).sort(), [...ATTACH_ARGUMENTS].sort());
  const launch = contributed.configurationAttributes["launch"]?.properties ?? {};
  assert.deepEqual(Object.keys(launch).sort(), [...LAUNCH_ARGUMENTS].sort());
  for (const [name, schema] of Object.entries(properties)) {
    assert.ok(schema["markdownDescription"], `${name} has no description`);
  }
});

test("what the manifest offers to write into launch.json is usable", () => {
  const snippets = contributed.configurationSnippets.map((snippet) => snippet.body);
  for (const offered of [...contributed.initialConfigurations, ...snippets]) {
    assert.equal(offered.type, DEBUG_TYPE);
    for (const key of Object.keys(offered)) {
      assert.ok(["type", "request", "name", ...ATTACH_ARGUMENTS, ...LAUNCH_ARGUMENTS].includes(key), `${key} is not an argument`);
    }
  }
  assert.deepEqual(contributed.initialConfigurations, [withDefaults({})]);
});

test("breakpoints can be set in every language that the debugger claims", () => {
  assert.deepEqual(
    manifest.contributes.breakpoints.map((entry) => entry.language),
    contributed.languages,
  );
});
