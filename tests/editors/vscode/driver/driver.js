/**
 * Runs inside VS Code's extension host: what a program can see of the RipTrace extension through the vscode API.
 *
 * RIPTRACE_DRIVER_TASK holds the task as JSON: `checks` names the file beside this one that has the checks, `progress`
 * the file that says which check runs, `result` the file for the results, written once at the end. Each check has a
 * deadline, and after a failed one the rest is not tried: it would only report what follows from it.
 */
const fs = require("node:fs");
const vscode = require("vscode");

const task = JSON.parse(process.env.RIPTRACE_DRIVER_TASK);

/** Messages of all sessions, in order: { session, direction: "in" | "out", message }. */
const messages = [];
const watchers = new Set();
/** What the newest messages were, for a wait that fails. */
const lastMessages = [];
const LAST_MESSAGES_MAX = 12;

const checks = [];
/** `milliseconds` is how long the check may take as a whole. */
const check = (name, run, milliseconds = task.answerMs) => checks.push({ name, run, milliseconds });

exports.activate = (context) => {
  context.subscriptions.push(
    vscode.debug.registerDebugAdapterTrackerFactory("riptrace", {
      createDebugAdapterTracker: ({ id }) => ({
        onWillReceiveMessage: (message) => saw(id, "in", message),
        onDidSendMessage: (message) => saw(id, "out", message),
      }),
    }),
  );
  require(`./${task.checks}.js`)({ task, check, eventually, within, started, ended, ask, events, messages, onMessage });
  void runAll();
};

async function runAll() {
  const results = [];
  for (const { name, run, milliseconds } of checks) {
    fs.writeFileSync(task.progress, `${name}\n`);
    const began = Date.now();
    let error;
    try {
      await within(milliseconds, name, Promise.resolve().then(run));
    } catch (thrown) {
      error = `${thrown.stack ?? thrown}\n${breakpointsSaid()}`;
    }
    results.push({ name, milliseconds: Date.now() - began, error });
    if (error) break;
  }
  const untried = checks.slice(results.length).map(({ name }) => name);
  write(task.result, { results, untried, messages: task.keepsMessages === false ? [] : messages });
}

/** Written beside and renamed: the reader never sees half of it. */
function write(file, value) {
  fs.writeFileSync(`${file}.partial`, JSON.stringify(value));
  fs.renameSync(`${file}.partial`, file);
}

function saw(session, direction, message) {
  if (task.keepsMessages !== false) messages.push({ session, direction, message: structuredClone(message) });
  lastMessages.push(`${direction === "in" ? "asked" : "said"} ${message.event ?? message.command}`);
  if (lastMessages.length > LAST_MESSAGES_MAX) lastMessages.shift();
  for (const watcher of watchers) watcher(direction, message);
}

/** Starts a session and waits until the editor says that it has begun; returns it. */
async function started(configuration) {
  let subscription;
  const begun = new Promise((resolve) => {
    subscription = vscode.debug.onDidStartDebugSession((session) => {
      if (session.name === configuration.name) resolve(session);
    });
  });
  const start = Promise.resolve(vscode.debug.startDebugging(vscode.workspace.workspaceFolders[0], configuration));
  const refused = start.then((is) => {
    if (!is) throw new Error(`VS Code did not start the session "${configuration.name}"`);
    return begun;
  });
  const what = `the start of the session "${configuration.name}"`;
  return within(task.firstHitMs, what, refused).finally(() => subscription.dispose());
}

/** Stops a session and waits until the editor says that it is over. */
async function ended(session) {
  let subscription;
  const over = new Promise((resolve) => {
    subscription = vscode.debug.onDidTerminateDebugSession((each) => {
      if (each === session) resolve();
    });
  });
  const stopped = Promise.all([vscode.debug.stopDebugging(session), over]);
  await within(task.answerMs, `the end of the session "${session.name}"`, stopped).finally(() =>
    subscription.dispose(),
  );
}

/** What the adapter of a session answers. */
function ask(session, command, args) {
  return within(task.answerMs, `the answer to ${command}`, session.customRequest(command, args));
}

/** `listener` is given each message of a session from now on, with its direction. */
function onMessage(listener) {
  watchers.add(listener);
}

/** The promise's value, or an error that names what did not happen in time. */
function within(milliseconds, what, promise) {
  let timer;
  const deadline = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${milliseconds} ms`)), milliseconds);
  });
  return Promise.race([promise, deadline]).finally(() => clearTimeout(timer));
}

/**
 * The first value that `find` returns. Without `poll` it is looked for whenever a message of a session passes (which
 * `find` is given); with it, every so many milliseconds, one look after the other: what is asked of an adapter is a
 * message as well, and a look at each of those would ask without end.
 */
function eventually(what, find, milliseconds, poll) {
  let over = false;
  let stop = () => {};
  const found = new Promise((resolve, reject) => {
    const take = (value) => value && resolve(value);
    if (poll) {
      let timer;
      const look = () =>
        Promise.resolve()
          .then(find)
          .then((value) => {
            take(value);
            if (!over && !value) timer = setTimeout(look, poll);
          })
          .catch(reject);
      stop = () => clearTimeout(timer);
      void look();
      return;
    }
    const look = (direction, message) => {
      try {
        take(find(direction, message));
      } catch (error) {
        reject(error);
      }
    };
    stop = () => watchers.delete(look);
    watchers.add(look);
    look();
  });
  return within(milliseconds, what, found)
    .catch((error) => {
      throw new Error(`${error.message}; the last messages: ${lastMessages.join(", ") || "none"}`);
    })
    .finally(() => {
      over = true;
      stop();
    });
}

function events(kind) {
  return messages
    .filter(({ message }) => message.type === "event" && message.event === kind)
    .map(({ message }) => message.body);
}

/** What the adapter said last of each breakpoint: where it is armed, or why not. */
function breakpointsSaid() {
  const said = new Map();
  const keep = ({ id, line, message }) => said.set(id, `line ${line}: ${message}`);
  for (const { message } of messages) {
    if (message.command === "setBreakpoints" && message.type === "response") message.body?.breakpoints?.forEach(keep);
    if (message.event === "breakpoint") keep(message.body.breakpoint);
  }
  return `the adapter says of the breakpoints: ${[...said.values()].join(" | ") || "nothing"}`;
}
