/**
 * The user's settings, and the search for the binary over the real disk: the one place that knows both.
 */
import * as fs from "node:fs";
import * as os from "node:os";
import * as vscode from "vscode";
import { findBinary, type SearchResult } from "./findBinary";
import type { TraceLevel } from "./trace";

export interface Settings {
  readonly path: string;
  readonly nats: string;
  readonly languageServerEnabled: boolean;
  readonly trace: TraceLevel;
}

export const SECTION = "riptrace";

export function readSettings(): Settings {
  const section = vscode.workspace.getConfiguration(SECTION);
  return {
    path: section.get("path", ""),
    nats: section.get("nats", ""),
    languageServerEnabled: section.get("languageServer.enable", true),
    trace: section.get("trace.server", "off"),
  };
}

/** The local folders of the workspace, the first one first. */
export function workspaceFolders(): string[] {
  return (vscode.workspace.workspaceFolders ?? [])
    .filter((folder) => folder.uri.scheme === "file")
    .map((folder) => folder.uri.fsPath);
}

export function searchBinary(): SearchResult {
  return findBinary({
    configured: readSettings().path,
    workspaceFolders: workspaceFolders(),
    pathVariable: process.env["PATH"],
    homeDirectory: os.homedir(),
    isExecutable,
  });
}

function isExecutable(file: string): boolean {
  try {
    fs.accessSync(file, fs.constants.X_OK);
    return fs.statSync(file).isFile();
  } catch {
    return false;
  }
}

/** Shows why there is no binary, with the way to the setting. */
export async function reportMissingBinary(message: string): Promise<void> {
  const openSetting = "Open setting";
  if ((await vscode.window.showErrorMessage(message, openSetting)) === openSetting) {
    await vscode.commands.executeCommand("workbench.action.openSettings", `${SECTION}.path`);
  }
}
