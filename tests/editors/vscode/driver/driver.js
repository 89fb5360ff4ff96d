/**
 * Runs inside VS Code's extension host: what a program can see of the RipTrace extension through the vscode API.
 *
 * RIPTRACE_DRIVER_TASK holds the task as JSON; the results go to the file that it names, as one write at the end.
 */
const assert = require("node:assert/strict");
const fs = require("node:fs");
const vscode = require("vscode");

const task = JSON.parse(process.env.RIPTRACE_DRIVER_TASK);

/** Messages of the running session, in order: { direction: "in" | "out", message }. */
const messages = [];
const watchers = new Set();

const checks = [];
const check = (name, run) => checks.push({ name, run });

exports.activate = (context) => {
  context.subscriptions.push(
    vscode.debug.registerDebugAdapterTrackerFactory("riptrace", {
      createDebugAdapterTracker: () => ({
        onWillReceiveMessage: (message) => saw("in", message),
        onDidSendMessage: (message) => saw("out", message),
      }),
    }),
  );
  void runAll();
};

async function runAll() {
  const results = [];
  for (const { name, run } of checks) {
    const began = Date.now();
    let error;
    try {
      await run();
    } catch (thrown) {
      error = thrown.stack ?? String(thrown);
    }
    results.push({ name, milliseconds: Date.now() - began, error });
  }
  // Written beside and renamed: the reader never sees half of it.
  fs.writeFileSync(`${task.result}.partial`, JSON.stringify({ results, messages }));
  fs.renameSync(`${task.result}.partial`, task.result);
}

function saw(direction, message) {
  messages.push({ direction, message: structuredClone(message) });
  for (const watcher of watchers) watcher();
}

/** The first value that `find` returns, looked for whenever the adapter sent something and on `event`s of the editor. */
function eventually(what, find, milliseconds, poll) {
  return new Promise((resolve, reject) => {
    const look = async () => {
      try {
        const found = await find();
        if (!found) return;
        end();
        resolve(found);
      } catch (error) {
        end();
        reject(error);
      }
    };
    const end = () => {
      clearTimeout(timer);
      clearInterval(interval);
      watchers.delete(look);
    };
    const timer = setTimeout(() => {
      end();
      const said = [...breakpointMessages().values()].join(" | ");
      reject(new Error(`${what}: not within ${milliseconds} ms; the adapter says of the breakpoints: ${said}`));
    }, milliseconds);
    // Providers have no event for "the answer would now be another": they are asked again.
    const interval = poll ? setInterval(look, poll) : undefined;
    watchers.add(look);
    void look();
  });
}

const events = (kind) =>
  messages
    .filter(({ message }) => message.type === "event" && message.event === kind)
    .map(({ message }) => message.body);

/** What the adapter said last of each breakpoint: where it is armed, or why not. */
function breakpointMessages() {
  const said = new Map();
  const keep = ({ id, line, message }) => said.set(id, `line ${line}: ${message}`);
  for (const { message } of messages) {
    if (message.command === "setBreakpoints" && message.type === "response") message.body?.breakpoints.forEach(keep);
    if (message.event === "breakpoint") keep(message.body.breakpoint);
  }
  return said;
}

const uri = vscode.Uri.file(task.breakpoint.path);
const position = ({ line }) => new vscode.Position(line - 1, 0);
let session;

check("the extension is installed and active", () => {
  const extension = vscode.extensions.getExtension("riptrace.riptrace");
  assert.ok(extension?.isActive);
  assert.equal(extension.packageJSON.contributes.debuggers[0].type, "riptrace");
});

check("its commands are registered", async () => {
  const commands = await vscode.commands.getCommands(true);
  for (const { command } of vscode.extensions.getExtension("riptrace.riptrace").packageJSON.contributes.commands) {
    assert.ok(commands.includes(command), command);
  }
});

check("riptrace.toml is a language of its own, with snippets", async () => {
  const settings = await vscode.workspace.openTextDocument(vscode.Uri.parse(`untitled:${task.shop}/riptrace.toml`));
  assert.equal(settings.languageId, "riptrace-toml");
  const start = new vscode.Position(0, 0);
  const { items } = await vscode.commands.executeCommand("vscode.executeCompletionItemProvider", settings.uri, start);
  const labels = items.map(({ label }) => (typeof label === "string" ? label : label.label));
  for (const key of ["nats", "creds", "selector", "rate", "substitute_path"]) {
    assert.ok(labels.includes(key), `${key} is not among ${labels}`);
  }
});

check("a wrong configuration does not start", async () => {
  const wrong = { type: "riptrace", request: "attach", name: "wrong", rate: 0 };
  assert.equal(await vscode.debug.startDebugging(vscode.workspace.workspaceFolders[0], wrong), false);
  assert.equal(messages.length, 0, "an adapter was started");
});

check("a session starts with a breakpoint and a logpoint", async () => {
  vscode.debug.addBreakpoints([
    new vscode.SourceBreakpoint(new vscode.Location(uri, position(task.breakpoint))),
    new vscode.SourceBreakpoint(
      new vscode.Location(vscode.Uri.file(task.logpoint.path), position(task.logpoint)),
      true,
      undefined,
      undefined,
      `${task.logpoint.expression}={${task.logpoint.expression}}`,
    ),
  ]);
  const started = new Promise((resolve) => {
    const subscription = vscode.debug.onDidStartDebugSession((each) => {
      subscription.dispose();
      resolve(each);
    });
  });
  const configuration = { type: "riptrace", request: "attach", name: "driver" };
  assert.equal(await vscode.debug.startDebugging(vscode.workspace.workspaceFolders[0], configuration), true);
  session = await started;
  assert.equal(session.type, "riptrace");
});

check("the settings and the folder are in the attach request", () => {
  const { message } = messages.find(({ message }) => message.command === "attach");
  assert.equal(message.arguments.nats, task.nats);
  assert.equal(message.arguments.cwd, task.shop);
});

check("hits arrive as output lines with their source", async () => {
  for (const { path, line } of [task.breakpoint, task.logpoint]) {
    await eventually(
      `a hit of ${path}:${line}`,
      () =>
        events("output").find((body) => body.variablesReference > 0 && body.line === line && body.source.path === path),
      task.firstHitMs,
    );
  }
});

check("the first hit of the breakpoint stops the session at its line", async () => {
  const stop = await eventually(
    "a stop",
    () => events("stopped").find(({ reason }) => reason === "breakpoint"),
    task.firstHitMs,
  );
  const { stackFrames } = await session.customRequest("stackTrace", { threadId: stop.threadId });
  assert.equal(stackFrames[0].line, task.breakpoint.line);
  const { scopes } = await session.customRequest("scopes", { frameId: stackFrames[0].id });
  const names = [];
  for (const { variablesReference } of scopes) {
    const { variables } = await session.customRequest("variables", { variablesReference });
    names.push(...variables.map(({ name }) => name));
  }
  for (const name of task.breakpointVariables) assert.ok(names.includes(name), `${name} is not among ${names}`);
});

check("code lens and inlay hint come from the language server", async () => {
  await vscode.window.showTextDocument(uri);
  const range = new vscode.Range(task.breakpoint.line - 1, 0, task.breakpoint.line, 0);
  await eventually(
    "a code lens with hits",
    async () => {
      const lenses = await vscode.commands.executeCommand("vscode.executeCodeLensProvider", uri, 100);
      return lenses.find((lens) => range.contains(lens.range.start) && /hit/.test(lens.command?.title));
    },
    task.firstHitMs,
    250,
  );
  await eventually(
    "an inlay hint with a value",
    async () => {
      const hints = await vscode.commands.executeCommand("vscode.executeInlayHintProvider", uri, range);
      const text = ({ label }) => (typeof label === "string" ? label : label.map(({ value }) => value).join(""));
      return hints.find((hint) => /=/.test(text(hint)));
    },
    task.firstHitMs,
    250,
  );
});

check("stopping ends the session", async () => {
  const ended = new Promise((resolve) => {
    const subscription = vscode.debug.onDidTerminateDebugSession((each) => {
      if (each !== session) return;
      subscription.dispose();
      resolve(true);
    });
  });
  let timer;
  const deadline = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`the session did not end within ${task.answerMs} ms`)), task.answerMs);
  });
  await Promise.race([Promise.all([vscode.debug.stopDebugging(session), ended]), deadline]);
  clearTimeout(timer);
});

check("every request was answered exactly once", () => {
  const requests = messages.filter(({ direction, message }) => direction === "in" && message.type === "request");
  assert.ok(requests.length > 10, `only ${requests.length} requests were seen`);
  // What VS Code still asks of an adapter that it has disconnected needs no answer.
  const disconnect = requests.findIndex(({ message }) => message.command === "disconnect");
  assert.ok(disconnect > 0, "no disconnect request was seen");
  for (const { message } of requests.slice(0, disconnect + 1)) {
    const answers = messages.filter((each) => each.direction === "out" && each.message.request_seq === message.seq);
    assert.equal(answers.length, 1, `${message.command} (${message.seq}) has ${answers.length} answers`);
  }
});
