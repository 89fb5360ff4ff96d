/**
 * What a program can see of the extension through the vscode API: one session from its start to its end.
 */
const assert = require("node:assert/strict");
const path = require("node:path");
const vscode = require("vscode");

module.exports = ({ task, check, eventually, started, ended, ask, events, messages }) => {
  const uri = vscode.Uri.file(task.breakpoint.path);
  const position = ({ line }) => new vscode.Position(line - 1, 0);
  let session;

  check("the extension is installed and active", () => {
    const extension = vscode.extensions.getExtension("riptrace.riptrace");
    assert.ok(extension?.isActive);
    assert.equal(extension.packageJSON.contributes.debuggers[0].type, "riptrace");
    // Where the files and the binary are, not where the window is: over ssh and in containers as well.
    assert.equal(extension.extensionKind, vscode.ExtensionKind.Workspace);
  });

  check("its commands are registered", async () => {
    const commands = await vscode.commands.getCommands(true);
    for (const { command } of vscode.extensions.getExtension("riptrace.riptrace").packageJSON.contributes.commands) {
      assert.ok(commands.includes(command), command);
    }
  });

  check("riptrace.toml is a language of its own, with snippets", async () => {
    // Not one without a file: VS Code would ask where to save it before a session starts.
    const settings = await vscode.workspace.openTextDocument(
      vscode.Uri.file(path.join(task.directory, "riptrace.toml")),
    );
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

  check(
    "a session starts with a breakpoint and a logpoint",
    async () => {
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
      session = await started({ type: "riptrace", request: "attach", name: "driver" });
      assert.equal(session.type, "riptrace");
    },
    2 * task.firstHitMs,
  );

  check("the settings and the folder are in the attach request", () => {
    const { message } = messages.find(({ message }) => message.command === "attach");
    assert.equal(message.arguments.nats, task.nats);
    assert.equal(message.arguments.cwd, task.shop);
  });

  check(
    "hits arrive as output lines with their source",
    async () => {
      for (const { path, line } of [task.breakpoint, task.logpoint]) {
        await eventually(
          `a hit of ${path}:${line}`,
          () =>
            events("output").find(
              (body) => body.variablesReference > 0 && body.line === line && body.source.path === path,
            ),
          task.firstHitMs,
        );
      }
    },
    2 * task.firstHitMs,
  );

  check(
    "the first hit of the breakpoint stops the session at its line",
    async () => {
      const stop = await eventually(
        "a stop",
        () => events("stopped").find(({ reason }) => reason === "breakpoint"),
        task.firstHitMs,
      );
      const { stackFrames } = await ask(session, "stackTrace", { threadId: stop.threadId });
      assert.equal(stackFrames[0].line, task.breakpoint.line);
      const { scopes } = await ask(session, "scopes", { frameId: stackFrames[0].id });
      const names = [];
      for (const { variablesReference } of scopes) {
        const { variables } = await ask(session, "variables", { variablesReference });
        names.push(...variables.map(({ name }) => name));
      }
      for (const name of task.breakpointVariables) assert.ok(names.includes(name), `${name} is not among ${names}`);
    },
    task.firstHitMs + task.answerMs,
  );

  check(
    "Go to hit opens another one, and the session says so",
    async () => {
      const newest = await eventually(
        "a second hit",
        async () => {
          const page = await ask(session, "riptrace/timelinePage", { count: 1 });
          return page.newest > 1 && page;
        },
        task.firstHitMs,
        250,
      );
      const before = events("stopped").length;
      const seq = newest.newest;
      await ask(session, "riptrace/openHit", { seq });
      const stop = await eventually("the stop in that hit", () => events("stopped")[before], task.answerMs);
      assert.match(stop.description, new RegExp(`^Hit ${seq}\\b`));
    },
    task.firstHitMs + task.answerMs,
  );

  check(
    "code lens and inlay hint come from the language server",
    async () => {
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
    },
    2 * task.firstHitMs + task.answerMs,
  );

  check(
    "a session is saved, and opened again without any fleet",
    async () => {
      const file = path.join(task.directory, "session.riptrace");
      const saved = await ask(session, "riptrace/save", { path: file });
      assert.ok(saved.hits > 0, JSON.stringify(saved));
      const began = messages.length;
      const configuration = { type: "riptrace", request: "launch", name: "saved", recording: file, cwd: task.shop };
      const recording = await started(configuration);
      const stop = await eventually(
        "the saved session stops in its first hit",
        () =>
          messages
            .slice(began)
            .find(({ message }) => message.event === "stopped" && /^Hit 1\b/.test(message.body.description)),
        task.answerMs,
      );
      assert.ok(stop);
      const { newest, kept } = await ask(recording, "riptrace/timelinePage", { count: 1 });
      assert.equal(kept, saved.hits);
      assert.ok(newest >= kept);
      await ended(recording);
    },
    task.firstHitMs + 4 * task.answerMs,
  );

  check("stopping ends the session", () => ended(session), 2 * task.answerMs);

  check("every request was answered exactly once", () => {
    for (const id of new Set(messages.map(({ session }) => session))) {
      const own = messages.filter((each) => each.session === id);
      const requests = own.filter(({ direction, message }) => direction === "in" && message.type === "request");
      assert.ok(requests.length > 5, `only ${requests.length} requests were seen`);
      // What VS Code still asks of an adapter that it has disconnected needs no answer.
      const disconnect = requests.findIndex(({ message }) => message.command === "disconnect");
      assert.ok(disconnect > 0, "no disconnect request was seen");
      for (const { message } of requests.slice(0, disconnect + 1)) {
        const answers = own.filter((each) => each.direction === "out" && each.message.request_seq === message.seq);
        assert.equal(answers.length, 1, `${message.command} (${message.seq}) has ${answers.length} answers`);
      }
    }
  });
};
