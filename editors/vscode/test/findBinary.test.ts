import assert from "node:assert/strict";
import test from "node:test";
import { candidatePaths, expandPath, findBinary, type SearchInputs } from "../src/findBinary";

/** A machine where just these files can be run. */
function machine(files: string[], given: Partial<SearchInputs> = {}): SearchInputs {
  return {
    configured: "",
    workspaceFolders: ["/code/shop", "/code/other"],
    pathVariable: "/usr/local/bin:/usr/bin",
    homeDirectory: "/home/ada",
    isExecutable: (file) => files.includes(file),
    ...given,
  };
}

function found(inputs: SearchInputs): string {
  const result = findBinary(inputs);
  assert.equal(result.kind, "found");
  return result.kind === "found" ? result.path : "";
}

function missing(inputs: SearchInputs): string {
  const result = findBinary(inputs);
  assert.equal(result.kind, "missing");
  return result.kind === "missing" ? result.message : "";
}

test("places are tried in the documented order", () => {
  const places = [
    "/usr/local/bin/riptrace",
    "/usr/bin/riptrace",
    "/code/shop/target/release/riptrace",
    "/code/other/target/release/riptrace",
    "/home/ada/.cargo/bin/riptrace",
    "/home/ada/.local/bin/riptrace",
  ];
  assert.deepEqual(candidatePaths(machine([])), places);
  places.forEach((place, index) => assert.equal(found(machine(places.slice(index))), place));
});

test("the setting wins over PATH", () => {
  const files = ["/opt/riptrace", "/usr/bin/riptrace"];
  assert.equal(found(machine(files, { configured: " /opt/riptrace " })), "/opt/riptrace");
});

test("a setting that points nowhere is an error that names the setting and the file", () => {
  const message = missing(machine(["/usr/bin/riptrace"], { configured: "/opt/riptrace" }));
  assert.match(message, /riptrace\.path/);
  assert.match(message, /'\/opt\/riptrace'/);
});

test("a relative setting is refused", () => {
  assert.match(missing(machine(["/usr/bin/riptrace"], { configured: "bin/riptrace" })), /not an absolute path/);
});

test("~ and ${workspaceFolder} are expanded in the setting", () => {
  assert.equal(found(machine(["/home/ada/bin/rt"], { configured: "~/bin/rt" })), "/home/ada/bin/rt");
  assert.equal(found(machine(["/code/shop/rt"], { configured: "${workspaceFolder}/rt" })), "/code/shop/rt");
});

test("a folder with a dollar sign in its name is taken as it is", () => {
  assert.equal(expandPath("${workspaceFolder}/rt", "/home/ada", "/code/$&x"), "/code/$&x/rt");
});

test("${workspaceFolder} without a folder stays, and is refused as relative", () => {
  const inputs = machine([], { configured: "${workspaceFolder}/rt", workspaceFolders: [] });
  assert.match(missing(inputs), /not an absolute path/);
});

test("relative and empty entries of PATH are not searched", () => {
  const inputs = machine(["bin/riptrace", "riptrace"], { pathVariable: "bin::.", workspaceFolders: [] });
  assert.equal(findBinary(inputs).kind, "missing");
});

test("without PATH the other places are still searched", () => {
  const inputs = machine(["/home/ada/.local/bin/riptrace"], { pathVariable: undefined });
  assert.equal(found(inputs), "/home/ada/.local/bin/riptrace");
});

test("when there is none, the message says how to get one", () => {
  const message = missing(machine([]));
  for (const part of [
    "PATH",
    "target/release",
    "~/.cargo/bin",
    "~/.local/bin",
    "cargo build --release",
    "riptrace.path",
  ]) {
    assert.ok(message.includes(part), `${part} is not in: ${message}`);
  }
});
