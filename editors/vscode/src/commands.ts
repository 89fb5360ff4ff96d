/**
 * The commands of the palette and of the Fleet view.
 */
import * as vscode from "vscode";
import { choicesOf, withDefaults, type Configuration } from "./configuration";
import { readFleet, showFleet } from "./fleet";
import { fleetQuery } from "./fleetQuery";
import type { FleetNode } from "./fleetTree";
import type { FleetView } from "./fleetView";
import type { LanguageServer } from "./languageServer";
import type { Sessions } from "./sessions";
import { reportMissingBinary, searchBinary, workspaceFolders } from "./settings";
import { bestMatches, commonEnd, fileName } from "./sourceFiles";
import { openHit, type TimelineView } from "./timelineView";

export const SHOW_FLEET = "riptrace.showFleet";
export const SHOW_TIMELINE = "riptrace.showTimeline";

const FLEET_SCHEME = "riptrace-fleet";
/** Files of one name that are compared with the path of a build: a checkout with more `main.go` is still searched enough. */
const SAME_NAME_MAX = 500;
/** What a click on a source in the Fleet view never finds: other people's code in the checkout. */
const NOT_SEARCHED = "**/{node_modules,target,.git}/**";

export interface Parts {
  readonly log: vscode.LogOutputChannel;
  readonly languageServer: LanguageServer;
  readonly sessions: Sessions;
  readonly fleetView: FleetView;
  readonly timelineView: TimelineView;
}

export function registerCommands(parts: Parts): vscode.Disposable {
  const { log, languageServer, sessions, fleetView, timelineView } = parts;
  const document = new FleetDocument();
  const register = vscode.commands.registerCommand;
  return vscode.Disposable.from(
    document,
    vscode.workspace.registerTextDocumentContentProvider(FLEET_SCHEME, document),
    register(SHOW_FLEET, () => fleetView.reveal()),
    register(SHOW_TIMELINE, () => timelineView.reveal()),
    register("riptrace.filterTimeline", () => timelineView.act("focusFilter")),
    register("riptrace.zoomTimelineIn", () => timelineView.act("zoomIn")),
    register("riptrace.zoomTimelineOut", () => timelineView.act("zoomOut")),
    register("riptrace.showWholeTimeline", () => timelineView.act("showAll")),
    register("riptrace.followTimeline", () => timelineView.act("follow")),
    register("riptrace.goToHit", () => goToHit(sessions)),
    register("riptrace.showFleetText", () => showFleetText(document, sessions, log)),
    register("riptrace.refreshFleet", () => fleetView.refresh()),
    register("riptrace.startFleet", () => startFleet()),
    register("riptrace.attach", () => attach()),
    register("riptrace.attachTo", (node: FleetNode) => attachTo(node)),
    register("riptrace.copySelector", (node: FleetNode) => vscode.env.clipboard.writeText(node.selector ?? "")),
    register("riptrace.openSource", (node: FleetNode) => openSource(node)),
    register("riptrace.traceLine", () => traceLine(sessions)),
    register("riptrace.traceMessage", () => traceMessage(sessions)),
    register("riptrace.traceFunction", () => traceFunction(sessions)),
    register("riptrace.showReadable", () => languageServer.showReadable()),
    register("riptrace.stopTracepoint", (node: FleetNode) => stopTracepoint(node)),
    register("riptrace.stopTracing", () => stop(sessions)),
    register("riptrace.saveSession", () => saveSession(sessions)),
    register("riptrace.openSession", () => openSession()),
    register("riptrace.openLog", () => log.show()),
    register("riptrace.openSettings", () =>
      vscode.commands.executeCommand("workbench.action.openSettings", `@ext:riptrace.riptrace`),
    ),
    register("riptrace.openWalkthrough", () =>
      vscode.commands.executeCommand("workbench.action.openWalkthrough", "riptrace.riptrace#riptrace.start", false),
    ),
    register("riptrace.restartLanguageServer", () => languageServer.restart()),
  );
}

/** The last answer of `riptrace ps` as a read-only document: a table wants the width of an editor, and searching. */
class FleetDocument implements vscode.TextDocumentContentProvider, vscode.Disposable {
  private readonly changed = new vscode.EventEmitter<vscode.Uri>();
  private readonly uri = vscode.Uri.from({ scheme: FLEET_SCHEME, path: "RipTrace Fleet" });
  private text = "";

  readonly onDidChange = this.changed.event;

  provideTextDocumentContent(): string {
    return this.text;
  }

  async show(text: string): Promise<void> {
    this.text = text;
    this.changed.fire(this.uri);
    const document = await vscode.workspace.openTextDocument(this.uri);
    await vscode.window.showTextDocument(document, { preview: false });
  }

  dispose(): void {
    this.changed.dispose();
  }
}

async function showFleetText(document: FleetDocument, sessions: Sessions, log: vscode.LogOutputChannel): Promise<void> {
  const query = fleetQuery(sessions.current?.configuration);
  if ("missing" in query) {
    await reportMissingBinary(query.missing);
    return;
  }
  // The URL stays out of the log: it may hold a password.
  log.info(`running ${query.binary} ps`);
  const report = await vscode.window.withProgress(
    { location: vscode.ProgressLocation.Window, title: "RipTrace: asking the fleet" },
    () => showFleet(query),
  );
  if (report.text !== "") {
    await document.show(report.text);
  }
  if (report.problem !== undefined) {
    log.error(report.problem);
    void vscode.window.showErrorMessage(report.problem);
  }
}

/** `riptrace up` in a terminal: it asks for the password where tracing needs one, and Ctrl-C ends it. */
async function startFleet(): Promise<void> {
  const search = searchBinary();
  if (search.kind === "missing") {
    await reportMissingBinary(search.message);
    return;
  }
  const cwd = workspaceFolders()[0];
  const terminal = vscode.window.createTerminal({
    name: "RipTrace fleet",
    shellPath: search.path,
    shellArgs: ["up"],
    iconPath: new vscode.ThemeIcon("server-process"),
    ...(cwd === undefined ? {} : { cwd }),
  });
  terminal.show();
}

/** Asks which part of the fleet is meant, and starts a session there. */
async function attach(): Promise<void> {
  const query = fleetQuery();
  if ("missing" in query) {
    await reportMissingBinary(query.missing);
    return;
  }
  const choices = readFleet(query).then((look) => {
    if (look.kind !== "fleet") {
      void vscode.window.showWarningMessage(look.problem);
    }
    const configurations = look.kind === "fleet" ? choicesOf(look.fleet) : [withDefaults({})];
    return configurations.map((configuration) => ({
      label: configuration.name.replace(/^RipTrace: /, ""),
      description: typeof configuration["selector"] === "string" ? configuration["selector"] : "every process",
      configuration,
    }));
  });
  const chosen = await vscode.window.showQuickPick(choices, {
    placeHolder: "Which processes are to be traced?",
    matchOnDescription: true,
    // The end of a session moves the focus, late: the list would be gone while it is read. Escape closes it.
    ignoreFocusOut: true,
  });
  if (chosen !== undefined) {
    await startSession(chosen.configuration);
  }
}

async function attachTo(node: FleetNode): Promise<void> {
  if (node.selector !== undefined) {
    await startSession({ ...withDefaults({}), name: `RipTrace: ${node.label}`, selector: node.selector });
  }
}

async function startSession(configuration: Configuration): Promise<void> {
  await vscode.debug.startDebugging(vscode.workspace.workspaceFolders?.[0], configuration);
}

async function startSessionUnlessOneRuns(sessions: Sessions): Promise<void> {
  if (sessions.current === undefined) {
    await startSession(withDefaults({}));
  }
}

/** The line of the cursor, or undefined after a message. */
function cursorLocation(): { location: vscode.Location; editor: vscode.TextEditor } | undefined {
  const editor = vscode.window.activeTextEditor;
  if (editor === undefined || editor.document.uri.scheme !== "file") {
    void vscode.window.showInformationMessage("RipTrace: put the cursor on the line of a source file first.");
    return undefined;
  }
  const position = new vscode.Position(editor.selection.active.line, 0);
  return { location: new vscode.Location(editor.document.uri, position), editor };
}

async function traceLine(sessions: Sessions): Promise<void> {
  const at = cursorLocation();
  if (at === undefined) {
    return;
  }
  if (breakpointsAt(at.location.uri, at.location.range.start.line).length === 0) {
    vscode.debug.addBreakpoints([new vscode.SourceBreakpoint(at.location)]);
  }
  await startSessionUnlessOneRuns(sessions);
}

async function traceMessage(sessions: Sessions): Promise<void> {
  const at = cursorLocation();
  if (at === undefined) {
    return;
  }
  const { document, selection } = at.editor;
  const range = selection.isEmpty ? document.getWordRangeAtPosition(selection.active) : selection;
  const word = range === undefined ? "" : document.getText(range);
  const message = await vscode.window.showInputBox({
    title: `Trace line ${at.location.range.start.line + 1}`,
    prompt: "What each passage says; {expressions} are evaluated over its variables",
    value: word === "" || word.includes("\n") ? "" : `${word}={${word}}`,
  });
  if (message === undefined || message.trim() === "") {
    return;
  }
  vscode.debug.removeBreakpoints(breakpointsAt(at.location.uri, at.location.range.start.line));
  vscode.debug.addBreakpoints([new vscode.SourceBreakpoint(at.location, true, undefined, undefined, message)]);
  await startSessionUnlessOneRuns(sessions);
}

async function traceFunction(sessions: Sessions): Promise<void> {
  const name = await vscode.window.showInputBox({
    title: "Trace a function",
    prompt: "NAME is its entry, NAME:return its returns with their results, NAME:call both with the duration",
    placeHolder: "main.(*Cart).Add:call",
  });
  if (name === undefined || name.trim() === "") {
    return;
  }
  vscode.debug.addBreakpoints([new vscode.FunctionBreakpoint(name.trim())]);
  await startSessionUnlessOneRuns(sessions);
}

function breakpointsAt(uri: vscode.Uri, line: number): vscode.SourceBreakpoint[] {
  return vscode.debug.breakpoints
    .filter((breakpoint) => breakpoint instanceof vscode.SourceBreakpoint)
    .filter(({ location }) => location.uri.toString() === uri.toString() && location.range.start.line === line);
}

/** Takes out the breakpoint that this tracepoint came from. The tracepoints of other people's sessions are theirs. */
async function stopTracepoint(node: FleetNode): Promise<void> {
  const { source, label } = node;
  const own = vscode.debug.breakpoints.filter((breakpoint) =>
    breakpoint instanceof vscode.FunctionBreakpoint
      ? breakpoint.functionName === label
      : breakpoint instanceof vscode.SourceBreakpoint &&
        source !== undefined &&
        breakpoint.location.range.start.line + 1 === source.line &&
        commonEnd(breakpoint.location.uri.path, source.file) > 0,
  );
  if (own.length === 0) {
    const text = `RipTrace: ${label} is no breakpoint of this window. It ends with the session that asked for it.`;
    await vscode.window.showInformationMessage(text);
    return;
  }
  vscode.debug.removeBreakpoints(own);
}

async function goToHit(sessions: Sessions): Promise<void> {
  if (sessions.current === undefined) {
    await vscode.window.showInformationMessage("RipTrace: no session is running, so there are no hits.");
    return;
  }
  const typed = await vscode.window.showInputBox({
    title: "Go to hit",
    prompt: "The number of a hit, as the Timeline and the Debug Console show it",
    validateInput: (value) => (/^\s*#?\d+\s*$/.test(value) ? undefined : "A number, such as 120"),
  });
  if (typed !== undefined) {
    await openHit(sessions, Number(typed.replace("#", "")));
  }
}

/** The suffix of saved sessions. */
const RECORDING = { "RipTrace sessions": ["riptrace"] };

/** Writes the hits of the session into a file, which is opened again without any fleet. */
async function saveSession(sessions: Sessions): Promise<void> {
  const session = sessions.current;
  if (session === undefined) {
    await vscode.window.showInformationMessage("RipTrace: no session is running, so there is nothing to save.");
    return;
  }
  const uri = await vscode.window.showSaveDialog({ filters: RECORDING, title: "Save the session's hits" });
  if (uri === undefined) {
    return;
  }
  try {
    await session.customRequest("riptrace/save", { path: uri.fsPath });
    void vscode.window.showInformationMessage(`RipTrace: the hits of "${session.name}" are in ${uri.fsPath}.`);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    void vscode.window.showErrorMessage(`RipTrace: the session was not saved: ${why}`);
  }
}

async function openSession(): Promise<void> {
  const chosen = await vscode.window.showOpenDialog({ filters: RECORDING, title: "Open a saved session" });
  const file = chosen?.[0]?.fsPath;
  if (file !== undefined) {
    const name = `RipTrace: ${fileName(file)}`;
    await startSession({ ...withDefaults({}), request: "launch", name, recording: file });
  }
}

async function stop(sessions: Sessions): Promise<void> {
  if (sessions.current !== undefined) {
    await vscode.debug.stopDebugging(sessions.current);
  }
}

async function openSource(node: FleetNode): Promise<void> {
  const { source } = node;
  if (source === undefined) {
    return;
  }
  const found = await vscode.workspace.findFiles(`**/${fileName(source.file)}`, NOT_SEARCHED, SAME_NAME_MAX);
  const matches = bestMatches(
    found.map((uri) => uri.path),
    source.file,
  );
  const uri = found.find(({ path }) => path === matches[0]);
  if (uri === undefined) {
    await vscode.window.showInformationMessage(`RipTrace: no file of this workspace is ${source.file}.`);
    return;
  }
  const position = new vscode.Position(Math.max(0, source.line - 1), 0);
  await vscode.window.showTextDocument(uri, { selection: new vscode.Range(position, position) });
}

