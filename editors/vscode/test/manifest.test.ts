import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import test from "node:test";
import { adviceNodes } from "../src/fleetTree";

interface Step {
  id: string;
  description: string;
  media: { markdown: string };
  completionEvents: string[];
}
interface Manifest {
  icon: string;
  extensionKind: string[];
  activationEvents: string[];
  contributes: {
    commands: { command: string; title: string; category: string }[];
    walkthroughs: { id: string; steps: Step[] }[];
    viewsWelcome: { contents: string; when: string }[];
    snippets: { path: string }[];
    grammars: { path: string }[];
  };
}

// The tests run in the extension's folder.
const manifest = JSON.parse(readFileSync("package.json", "utf8")) as Manifest;
const { commands, walkthroughs, viewsWelcome, snippets, grammars } = manifest.contributes;
const [walkthrough] = walkthroughs;
assert.ok(walkthrough);
const sources = readdirSync("src", { recursive: true })
  .map(String)
  .filter((name) => name.endsWith(".ts"))
  .map((name) => readFileSync(path.join("src", name), "utf8"))
  .join("\n");

test("every file that the manifest names is there, and in the package", () => {
  const kept = readFileSync(".vscodeignore", "utf8");
  assert.match(kept, /^!media\/\*\*$/m);
  const media = walkthrough.steps.map((step) => step.media.markdown);
  for (const file of [manifest.icon, ...media, ...[...snippets, ...grammars].map((entry) => entry.path)]) {
    assert.ok(existsSync(file), file);
    assert.match(file, /^(\.\/)?media\//);
  }
});

test("the icon is a square PNG of at least 128 pixels", () => {
  const icon = readFileSync(manifest.icon);
  assert.equal(icon.subarray(0, 8).toString("latin1"), "\x89PNG\r\n\x1a\n");
  const [width, height] = [icon.readUInt32BE(16), icon.readUInt32BE(20)];
  assert.ok(width === height && width >= 128, `${width} x ${height}`);
});

test("every command is registered, and every registered one has a title", () => {
  const known = new Set(commands.map(({ command }) => command));
  for (const command of known) {
    const isConstant = new RegExp(`= "${command}";`).test(sources);
    assert.ok(isConstant || sources.includes(`register("${command}"`), `${command} is not registered`);
  }
  for (const [, command] of sources.matchAll(/register\("(riptrace\.\w+)"/g)) {
    assert.ok(known.has(command ?? ""), `${command} has no title`);
  }
});

test("what a step or the Fleet view offers to do are commands that exist", () => {
  const texts = [
    ...walkthrough.steps.map(({ description }) => description),
    ...viewsWelcome.map(({ contents }) => contents),
  ];
  const linked = texts.flatMap((text) => [...text.matchAll(/\(command:([\w.]+)/g)].map(([, command]) => command ?? ""));
  const advised = [...adviceNodes("problem"), ...adviceNodes("missing")].map(({ command }) => command?.id ?? "");
  assert.ok(linked.length > 0);
  for (const command of [...linked, ...advised]) {
    assert.ok(command.startsWith("workbench.action.") || commands.some((each) => each.command === command), command);
  }
});

test("every step of the walkthrough is ticked off by something that the extension says", () => {
  for (const { id, completionEvents } of walkthrough.steps) {
    assert.ok(completionEvents.length > 0, id);
    for (const event of completionEvents) {
      const key = /^onContext:riptrace\.(\w+)( == \w+)?$/.exec(event)?.[1];
      assert.ok(key, `${id}: ${event}`);
      assert.ok(
        sources.includes(`set("${key}"`) || sources.includes(`"riptrace.${key}"`),
        `nothing sets riptrace.${key}`,
      );
    }
  }
  assert.ok(manifest.activationEvents.includes(`onWalkthrough:${walkthrough.id}`));
});

test("the extension runs where the sources and the binary are", () => {
  assert.deepEqual(manifest.extensionKind, ["workspace"]);
});
