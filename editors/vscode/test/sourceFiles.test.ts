import assert from "node:assert/strict";
import test from "node:test";
import { bestMatches, commonEnd, fileName } from "../src/sourceFiles";

const local = ["/home/ana/shop/cart/main.go", "/home/ana/shop/stock/main.go", "/home/ana/shop/main.go"];

test("the file with the longest common end is meant", () => {
  assert.deepEqual(bestMatches(local, "/build/src/stock/main.go"), ["/home/ana/shop/stock/main.go"]);
  assert.deepEqual(bestMatches(local, "example.com/shop/main.go"), ["/home/ana/shop/main.go"]);
});

test("files that are equally like it are all named, and another name is none of them", () => {
  assert.equal(bestMatches(local, "/elsewhere/main.go").length, 3);
  assert.deepEqual(bestMatches(local, "/build/src/cart/cart.go"), []);
  assert.deepEqual(bestMatches([], "main.go"), []);
});

test("a part of a name is no common end", () => {
  assert.equal(commonEnd("/a/xmain.go", "/a/main.go"), 0);
  assert.equal(commonEnd("a\\cart\\main.go", "/src/cart/main.go"), 2);
  assert.equal(fileName("/src/cart/main.go"), "main.go");
});
