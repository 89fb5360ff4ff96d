/**
 * The pictures of the READMEs, from what the last run of the editors' tests has left among its artefacts, and the
 * extension's icon from its drawing. `run.sh neovim vscode pictures` makes all of them anew.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { openBrowser } from "./vscode/browser.mjs";
import { indexedPng } from "./png.mjs";

const repository = fileURLToPath(new URL("../../", import.meta.url));
const artefacts = path.join(repository, "tests/artefacts");
/** What a picture may weigh in the repository. */
const BYTES_MAX = 120_000;
/** The icon is shown at 128 pixels, and twice as large on fine screens. */
const ICON_PIXELS = 256;

/** Screenshots of the workbench: artefact and picture. */
const SCREENSHOTS = {
  "vscode-step-over.png": "editors/vscode/images/session.png",
  "vscode-views.png": "editors/vscode/images/views.png",
  "vscode-views-dark.png": "editors/vscode/images/views-dark.png",
  "vscode-first-steps.png": "editors/vscode/images/first-steps.png",
};
/** Screens of Neovim, as cells. */
const SCREENS = {
  "neovim-timeline.json": "editors/neovim/images/timeline.png",
  "neovim-fleet.json": "editors/neovim/images/fleet.png",
};

const { page, close } = await openBrowser();
try {
  for (const [artefact, picture] of Object.entries(SCREENSHOTS)) await write(picture, await made(artefact));
  for (const [artefact, picture] of Object.entries(SCREENS))
    await write(picture, await drawn(JSON.parse(await made(artefact))));
  await writeFile(path.join(repository, "editors/vscode/media/icon.png"), await icon());
} finally {
  await close();
}

async function made(artefact) {
  const file = path.join(artefacts, artefact);
  return readFile(file).catch(() => {
    throw new Error(`${file} is not there: run tests/editors/run.sh neovim vscode first`);
  });
}

/** A picture of the repository, from any PNG. */
async function write(picture, png) {
  const { width, height, pixels } = await page.evaluate(
    async (url) => {
      const image = await createImageBitmap(await (await fetch(url)).blob());
      const canvas = new OffscreenCanvas(image.width, image.height);
      const context = canvas.getContext("2d");
      context.drawImage(image, 0, 0);
      const { data } = context.getImageData(0, 0, image.width, image.height);
      let text = "";
      for (let at = 0; at < data.length; at += 32_768) text += String.fromCharCode(...data.subarray(at, at + 32_768));
      return { width: image.width, height: image.height, pixels: btoa(text) };
    },
    `data:image/png;base64,${png.toString("base64")}`,
  );
  const small = indexedPng(Buffer.from(pixels, "base64"), width, height);
  if (small.length > BYTES_MAX) throw new Error(`${picture} has ${small.length} bytes: more than ${BYTES_MAX}`);
  const file = path.join(repository, picture);
  await mkdir(path.dirname(file), { recursive: true });
  await writeFile(file, small);
  process.stdout.write(`${picture}: ${small.length} bytes\n`);
}

/** A screen of Neovim as a terminal draws it. */
async function drawn({ foreground, background, rows }) {
  const colour = (number) => `#${number.toString(16).padStart(6, "0")}`;
  const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  const cell = ([text, style]) => {
    let [front, back] = [style.foreground ?? foreground, style.background ?? background];
    if (style.reverse) [front, back] = [back, front];
    const css = [`color:${colour(front)}`, `background:${colour(back)}`];
    if (style.bold) css.push("font-weight:bold");
    if (style.italic) css.push("font-style:italic");
    if (style.underline) css.push("text-decoration:underline");
    return `<span style="${css.join(";")}">${escaped(text)}</span>`;
  };
  const lines = rows.map((row) => `<div>${row.map(cell).join("")}</div>`).join("");
  const style = `margin:0;padding:8px;background:${colour(background)};font:14px/18px "DejaVu Sans Mono",monospace;white-space:pre`;
  await page.setContent(
    `<body style='${style.replaceAll("'", "")}'><main style="display:inline-block">${lines}</main></body>`,
  );
  const png = await page.locator("main").screenshot();
  await page.setContent("");
  return png;
}

async function icon() {
  const drawing = await readFile(path.join(repository, "editors/vscode/media/icon.svg"), "utf8");
  await page.setContent(`<body style="margin:0">${drawing}</body>`);
  const clip = { x: 0, y: 0, width: ICON_PIXELS, height: ICON_PIXELS };
  const png = await page.screenshot({ clip, omitBackground: true });
  await page.setContent("");
  return png;
}
