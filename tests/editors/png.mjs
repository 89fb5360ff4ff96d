/**
 * Small PNG files of pictures with few colours, such as those of an editor: up to 256 colours, chosen by the median cut.
 *
 * Encodes only. Pixels are RGBA, row by row; their alpha is not kept.
 */
import { deflateSync } from "node:zlib";

const COLOURS_MAX = 256;
/** The polynomial of the checksum of PNG (ISO/IEC 15948, annex D). */
const CRC_POLYNOMIAL = 0xedb88320;

/** A PNG of `width` by `height` pixels, as a Buffer. */
export function indexedPng(pixels, width, height) {
  if (pixels.length !== width * height * 4)
    throw new Error(`${pixels.length} bytes are not ${width} x ${height} pixels`);
  const counts = new Map();
  for (let at = 0; at < pixels.length; at += 4) {
    const colour = (pixels[at] << 16) | (pixels[at + 1] << 8) | pixels[at + 2];
    counts.set(colour, (counts.get(colour) ?? 0) + 1);
  }
  const boxes = cut(
    [...counts].map(([colour, count]) => ({ rgb: [colour >> 16, (colour >> 8) & 255, colour & 255], colour, count })),
  );
  const index = new Map();
  const palette = Buffer.alloc(boxes.length * 3);
  boxes.forEach((box, number) => {
    const whole = box.reduce((sum, { count }) => sum + count, 0);
    for (const channel of [0, 1, 2]) {
      const mean = box.reduce((sum, { rgb, count }) => sum + rgb[channel] * count, 0) / whole;
      palette[number * 3 + channel] = Math.round(mean);
    }
    for (const { colour } of box) index.set(colour, number);
  });
  const rows = Buffer.alloc((width + 1) * height);
  for (let y = 0, at = 0; y < height; y += 1) {
    // The first byte of a row says that it is not filtered.
    for (let x = 0; x < width; x += 1, at += 4) {
      const colour = (pixels[at] << 16) | (pixels[at + 1] << 8) | pixels[at + 2];
      rows[y * (width + 1) + 1 + x] = index.get(colour);
    }
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  // Eight bits a pixel, by palette.
  header.set([8, 3, 0, 0, 0], 8);
  return Buffer.concat([
    Buffer.from("\x89PNG\r\n\x1a\n", "latin1"),
    chunk("IHDR", header),
    chunk("PLTE", palette),
    chunk("IDAT", deflateSync(rows, { level: 9 })),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

/** Divides colours into boxes: again and again the one that spreads most, at its median by number of pixels. */
function cut(colours) {
  const boxes = [spread(colours)];
  while (boxes.length < COLOURS_MAX) {
    const widest = boxes.reduce((best, box, number) => (box.weight > boxes[best].weight ? number : best), 0);
    const { colours: own, channel, weight } = boxes[widest];
    if (weight === 0) break;
    own.sort((a, b) => a.rgb[channel] - b.rgb[channel]);
    const half = own.reduce((sum, { count }) => sum + count, 0) / 2;
    let seen = 0;
    const middle = own.findIndex(({ count }) => (seen += count) >= half) + 1;
    const at = Math.min(Math.max(middle, 1), own.length - 1);
    boxes.splice(widest, 1, spread(own.slice(0, at)), spread(own.slice(at)));
  }
  return boxes.map(({ colours: own }) => own);
}

/** The channel in which colours differ most, and how much that matters. */
function spread(colours) {
  const ranges = [0, 1, 2].map((channel) => {
    const values = colours.map(({ rgb }) => rgb[channel]);
    return values.reduce((a, b) => Math.max(a, b)) - values.reduce((a, b) => Math.min(a, b));
  });
  const channel = ranges.indexOf(Math.max(...ranges));
  const pixels = colours.reduce((sum, { count }) => sum + count, 0);
  return { colours, channel, weight: ranges[channel] * Math.sqrt(pixels) };
}

function chunk(kind, content) {
  const named = Buffer.concat([Buffer.from(kind, "latin1"), content]);
  const whole = Buffer.alloc(named.length + 8);
  whole.writeUInt32BE(content.length, 0);
  named.copy(whole, 4);
  whole.writeUInt32BE(crc(named), named.length + 4);
  return whole;
}

function crc(bytes) {
  let rest = 0xffffffff;
  for (const byte of bytes) {
    rest ^= byte;
    for (let bit = 0; bit < 8; bit += 1) rest = rest & 1 ? (rest >>> 1) ^ CRC_POLYNOMIAL : rest >>> 1;
  }
  return (rest ^ 0xffffffff) >>> 0;
}
