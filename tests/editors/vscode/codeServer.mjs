/**
 * VS Code's workbench as a web server (code-server) with the built extension installed, in folders of its own.
 *
 * Nothing of the user's is read or written: settings, extensions and state are in one temporary directory that
 * `close` removes.
 */
import { execFile, spawn } from "node:child_process";
import { chmod, mkdir, mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { artefacts, binary, nats, within } from "../support.mjs";

const run = promisify(execFile);

/** A cold start reads about 100 MB of JavaScript. */
const START_MS = 120_000;
const INSTALL_MS = 120_000;
/** SIGTERM ends code-server in well under a second; a machine that swaps needs more. */
const STOP_MS = 30_000;

/** Keeps the workbench quiet: no welcome page, no updates, no telemetry, no accounts. */
const QUIET_SETTINGS = {
  "workbench.startupEditor": "none",
  "workbench.tips.enabled": false,
  "security.workspace.trust.enabled": false,
  "telemetry.telemetryLevel": "off",
  "extensions.autoCheckUpdates": false,
  "extensions.ignoreRecommendations": true,
  "chat.disableAIFeatures": true,
  "git.enabled": false,
  "editor.minimap.enabled": false,
  "workbench.secondarySideBar.defaultVisibility": "hidden",
  "editor.inlayHints.enabled": "on",
  "debug.toolBarLocation": "docked",
  "debug.openDebug": "openOnDebugBreak",
  // A session would begin with the question where to save what has no file yet.
  "debug.saveBeforeStart": "none",
  // The sources belong to the services that run: a key that misses its box must not change them. In the browser,
  // VS Code would save such a change by itself.
  "files.autoSave": "off",
  "files.readonlyInclude": { "**/*": true },
};

/**
 * Starts a server with these extensions (.vsix files), set to the binary and the fleet of the tests. What the
 * server logs, and adapter and language server say and log, goes to files among the artefacts that begin with `name`.
 * `settings` are the user's, beside those that keep the workbench quiet; without `taps`, adapter and language server
 * run as they are, and nothing of them is written down.
 * With `isNew` it is a machine on which RipTrace was never used: no binary is set, and none is found.
 * Returns `{ url, configure, close }`; `configure` puts the binary into such a machine's ~/.local/bin and sets its fleet.
 */
export async function startCodeServer({ name, extensions, settings = {}, taps = true, isNew = false }) {
  const entry = path.join(process.env.RIPTRACE_EDITOR_TOOLS, "node_modules/code-server/out/node/entry.js");
  const directory = await mkdtemp(path.join(tmpdir(), "riptrace-workbench-"));
  const state = [
    "--user-data-dir",
    path.join(directory, "user"),
    "--extensions-dir",
    path.join(directory, "extensions"),
  ];
  const environment = {
    ...process.env,
    // Without these it writes into the user's own configuration.
    XDG_CONFIG_HOME: path.join(directory, "config"),
    XDG_DATA_HOME: path.join(directory, "data"),
  };
  await writeSettings(path.join(directory, "user", "User"), { ...QUIET_SETTINGS, ...settings });
  // Settings of the scope "machine", such as where a binary is, are only read from here.
  const configure = async () => {
    const found = isNew ? path.join(directory, ".local", "bin") : directory;
    await mkdir(found, { recursive: true });
    const file = taps ? await tappedBinary(found, name) : binary;
    // A new machine has the binary where it is looked for, and no setting that names it.
    const settings = { ...(isNew ? {} : { "riptrace.path": file }), "riptrace.nats": nats };
    await writeSettings(path.join(directory, "user", "Machine"), settings);
  };
  if (isNew) {
    // Its folders are where a binary is looked for.
    environment.HOME = directory;
    delete environment.NATS_URL;
  } else {
    await configure();
  }
  for (const extension of extensions) {
    await run(process.execPath, [entry, ...state, "--install-extension", extension], {
      env: environment,
      timeout: INSTALL_MS,
    });
  }

  const output = await open(path.join(artefacts, `${name}-server.log`), "w");
  const child = spawn(
    process.execPath,
    [
      entry,
      ...state,
      ...["--auth", "none", "--bind-addr", "127.0.0.1:0", "--disable-telemetry", "--disable-update-check"],
      ...["--disable-workspace-trust", "--disable-getting-started-override"],
    ],
    { env: environment, stdio: ["ignore", "pipe", output.fd] },
  );
  const ended = new Promise((resolve) =>
    child.once("exit", (code, signal) => resolve(signal ?? `exit status ${code}`)),
  );
  const url = await within(START_MS, "code-server listens", listeningUrl(child, output, ended));

  async function close() {
    child.kill("SIGTERM");
    try {
      await within(STOP_MS, "code-server ends", ended);
    } finally {
      child.kill("SIGKILL");
      await output.close();
      await rm(directory, { recursive: true, force: true, maxRetries: 5 });
    }
  }
  return { url, configure, close };
}

/** The binary, with what `dap` and `lsp` say and log written to files: output channels stay empty in code-server. */
async function tappedBinary(directory, name) {
  const script = path.join(directory, "riptrace");
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const tap = [process.execPath, fileURLToPath(new URL("tap.mjs", import.meta.url)), path.join(artefacts, name)];
  const tapped = `dap | lsp) exec ${tap.map(quoted).join(" ")}-"$1" ${quoted(binary)} "$@" ;;`;
  await writeFile(script, `#!/bin/sh\ncase $1 in\n${tapped}\nesac\nexec ${quoted(binary)} "$@"\n`);
  await chmod(script, 0o755);
  return script;
}

async function writeSettings(directory, settings) {
  await mkdir(directory, { recursive: true });
  await writeFile(path.join(directory, "settings.json"), JSON.stringify(settings, null, 2));
}

/** The address from its log: with port 0 the system chooses one that is free. */
function listeningUrl(child, output, ended) {
  return new Promise((resolve, reject) => {
    let text = "";
    child.stdout.on("data", (chunk) => {
      void output.write(chunk);
      text += chunk;
      const match = /HTTP server listening on (http:\/\/127\.0\.0\.1:\d+)/.exec(text);
      if (match) resolve(match[1]);
    });
    void ended.then((how) => reject(new Error(`code-server ended at its start: ${how}`)));
  });
}
