import assert from "node:assert/strict";
import test from "node:test";
import { CONTENT_BYTES_MAX, encodeMessage, FramingError, HEADER_BYTES_MAX, MessageReader } from "../src/framing";

const messages = [{ seq: 1, text: "grün ±41µs" }, { seq: 2 }, { seq: 3, text: "\r\n\r\nContent-Length: 9" }];
const stream = Buffer.concat(messages.map(encodeMessage));

for (const size of [1, 2, 7, 64, stream.length]) {
  test(`messages are read from chunks of ${size} bytes`, () => {
    const reader = new MessageReader();
    const read: unknown[] = [];
    for (let at = 0; at < stream.length; at += size) {
      read.push(...reader.push(stream.subarray(at, at + size)));
    }
    assert.deepEqual(read, messages);
  });
}

test("other header fields and another case are understood", () => {
  const reader = new MessageReader();
  const text = "Content-Type: application/json\r\ncontent-length:2\r\n\r\n{}";
  assert.deepEqual(reader.push(Buffer.from(text)), [{}]);
});

const wrong: [string, string | Buffer, RegExp][] = [
  ["a header without a length", "Content-Type: x\r\n\r\n", /without Content-Length: "Content-Type: x/],
  ["text of a program that is no adapter", `Usage: ${"x".repeat(HEADER_BYTES_MAX)}`, /no end of a header.*Usage/],
  ["a message that is too large", `Content-Length: ${CONTENT_BYTES_MAX + 1}\r\n\r\n`, /the most is/],
  ["content that is not JSON", "Content-Length: 3\r\n\r\n{]x", /not JSON: "\{\]x"/],
];
for (const [name, bytes, expected] of wrong) {
  test(`${name} is an error that shows it`, () => {
    assert.throws(
      () => new MessageReader().push(Buffer.from(bytes)),
      (error) => error instanceof FramingError && expected.test(error.message),
    );
  });
}
