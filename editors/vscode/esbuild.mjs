// Bundles the extension (dist/extension.js) and the timeline's page (dist/timeline.js) with the notices of what is inside
// them, or with --tests the unit tests (dist/test/). Node 20 cannot read TypeScript, so the tests are bundled too.
import { build } from "esbuild";
import { readFile, readdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";

const tests = process.argv.includes("--tests");
const outdir = tests ? "dist/test" : "dist";
await rm(outdir, { recursive: true, force: true });

const entries = tests ? (await readdir("test")).filter((name) => name.endsWith(".test.ts")).map((name) => path.join("test", name)) : ["src/extension.ts"];
const result = await build({
  entryPoints: entries,
  outdir,
  bundle: true,
  platform: "node",
  format: "cjs",
  target: "node20",
  external: ["vscode"],
  minify: !tests,
  sourcemap: tests ? "inline" : false,
  metafile: true,
  logLevel: "warning",
});
if (!tests) {
  // Runs in a page, where there is no module loader: one script, nothing of others in it.
  const page = await build({
    entryPoints: { timeline: "src/timeline/webview.ts" },
    outdir,
    bundle: true,
    platform: "browser",
    format: "iife",
    target: "es2022",
    minify: true,
    metafile: true,
    logLevel: "warning",
  });
  const foreign = Object.keys(page.metafile.inputs).find((input) => input.includes("node_modules"));
  if (foreign) throw new Error(`${foreign} is in the timeline's page, which has no notices`);
  await writeFile(path.join(outdir, "THIRD-PARTY-NOTICES.txt"), await notices(Object.keys(result.metafile.inputs)));
}

/** The licences of the packages whose files are in the bundle; a package without one fails the build. */
async function notices(inputs) {
  const roots = new Set();
  for (const input of inputs) {
    const match = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input);
    if (match) roots.add(match[1]);
  }
  const parts = [];
  for (const root of [...roots].sort()) {
    const manifest = JSON.parse(await readFile(path.join(root, "package.json"), "utf8"));
    const file = (await readdir(root)).find((name) => /^licen[cs]e/i.test(name));
    if (!file) throw new Error(`${root} is in the bundle but has no licence file: say here how it is licensed`);
    const text = await readFile(path.join(root, file), "utf8");
    parts.push(`${manifest.name} ${manifest.version} (${manifest.license})\n\n${text.trim()}\n`);
  }
  return `Software in dist/extension.js that others wrote.\n\n${parts.join(`\n${"-".repeat(72)}\n\n`)}`;
}
