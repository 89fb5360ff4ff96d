/**
 * The debug type `riptrace` in VS Code: configurations, the adapter process, the log of its messages.
 * What a configuration means is in configuration.ts; this file only hands things over.
 */
import * as vscode from "vscode";
import { AdapterProcess } from "./adapterProcess";
import { choicesOf, DEBUG_TYPE, problemOf, withDefaults, withSettings, type Configuration } from "./configuration";
import { readFleet } from "./fleet";
import { fleetQuery } from "./fleetQuery";
import { readSettings, reportMissingBinary, searchBinary, workspaceFolders } from "./settings";
import { traceLine } from "./trace";

export function registerDebugger(log: vscode.LogOutputChannel): vscode.Disposable {
  const provider = new ConfigurationProvider();
  return vscode.Disposable.from(
    vscode.debug.registerDebugConfigurationProvider(DEBUG_TYPE, provider),
    vscode.debug.registerDebugConfigurationProvider(
      DEBUG_TYPE,
      { provideDebugConfigurations: () => fleetChoices(log) },
      vscode.DebugConfigurationProviderTriggerKind.Dynamic,
    ),
    vscode.debug.registerDebugAdapterDescriptorFactory(DEBUG_TYPE, new AdapterFactory(log)),
    vscode.debug.registerDebugAdapterTrackerFactory(DEBUG_TYPE, {
      createDebugAdapterTracker: () => adapterTracker(log),
    }),
  );
}

/** What "Select and Start Debugging" offers: the fleet as it is, else all of it. */
async function fleetChoices(log: vscode.LogOutputChannel): Promise<vscode.DebugConfiguration[]> {
  const query = fleetQuery();
  if ("missing" in query) {
    return [withDefaults({})];
  }
  const look = await readFleet(query);
  if (look.kind !== "fleet") {
    log.warn(look.problem);
    return [withDefaults({})];
  }
  return choicesOf(look.fleet);
}

class ConfigurationProvider implements vscode.DebugConfigurationProvider {
  resolveDebugConfiguration(
    folder: vscode.WorkspaceFolder | undefined,
    given: vscode.DebugConfiguration,
  ): vscode.DebugConfiguration {
    const configuration = withDefaults(given);
    if (folder === undefined && configuration["cwd"] === "${workspaceFolder}") {
      // Without a folder the variable cannot be resolved and VS Code would refuse to start.
      delete configuration["cwd"];
    }
    return configuration;
  }

  resolveDebugConfigurationWithSubstitutedVariables(
    _folder: vscode.WorkspaceFolder | undefined,
    given: vscode.DebugConfiguration,
  ): vscode.DebugConfiguration | undefined {
    const configuration = withSettings(given as Configuration, readSettings());
    const problem = problemOf(configuration);
    if (problem !== undefined) {
      // Not awaited: the start would hang until somebody closes the message.
      void reportProblem(`RipTrace: the configuration "${configuration.name}" cannot be used: ${problem}`);
      return undefined;
    }
    const search = searchBinary();
    if (search.kind === "missing") {
      void reportMissingBinary(search.message);
      return undefined;
    }
    return configuration;
  }
}

async function reportProblem(text: string): Promise<void> {
  const openConfiguration = "Open launch.json";
  if ((await vscode.window.showErrorMessage(text, openConfiguration)) === openConfiguration) {
    await vscode.commands.executeCommand("workbench.action.debug.configure");
  }
}

class AdapterFactory implements vscode.DebugAdapterDescriptorFactory {
  constructor(private readonly log: vscode.LogOutputChannel) {}

  createDebugAdapterDescriptor(session: vscode.DebugSession): vscode.DebugAdapterDescriptor {
    const search = searchBinary();
    if (search.kind === "missing") {
      throw new Error(search.message);
    }
    const cwd: unknown = session.configuration["cwd"];
    const directory = typeof cwd === "string" ? cwd : workspaceFolders()[0];
    this.log.info(`starting ${search.path} dap for "${session.name}" in ${directory ?? "no folder"}`);
    return new vscode.DebugAdapterInlineImplementation(new Adapter(search.path, directory, session.name, this.log));
  }
}

/** The adapter's process as VS Code wants it; what it logs is in the log. */
class Adapter implements vscode.DebugAdapter {
  private readonly sent = new vscode.EventEmitter<vscode.DebugProtocolMessage>();
  private readonly process: AdapterProcess;

  readonly onDidSendMessage = this.sent.event;

  constructor(binary: string, cwd: string | undefined, name: string, log: vscode.LogOutputChannel) {
    this.process = new AdapterProcess(binary, cwd, {
      onMessage: (message) => this.sent.fire(message),
      onLog: (line) => log.info(`dap: ${line}`),
      onEnd: (how) => log.info(`adapter of "${name}" ended: ${how}`),
    });
  }

  handleMessage(message: vscode.DebugProtocolMessage): void {
    this.process.send(message);
  }

  dispose(): void {
    this.process.dispose();
    this.sent.dispose();
  }
}

function adapterTracker(log: vscode.LogOutputChannel): vscode.DebugAdapterTracker {
  const trace = (direction: "in" | "out", message: unknown): void => {
    const line = traceLine(readSettings().trace, direction, message);
    if (line !== undefined) {
      log.info(line);
    }
  };
  return {
    onWillReceiveMessage: (message) => trace("in", message),
    onDidSendMessage: (message) => trace("out", message),
  };
}
