import assert from "node:assert/strict";
import { test } from "node:test";
import { linesByDocument } from "../src/breakpoints";

test("lines are grouped by document, ascending, each once, without those that are off", () => {
  const at = (uri: string, line: number, enabled = true) => ({ uri, line, enabled });
  assert.deepEqual(linesByDocument([at("file:///a", 7), at("file:///b", 1), at("file:///a", 2), at("file:///a", 7)]), [
    { uri: "file:///a", lines: [2, 7] },
    { uri: "file:///b", lines: [1] },
  ]);
  assert.deepEqual(linesByDocument([at("file:///a", 3, false)]), []);
});
