/**
 * Where the `riptrace` binary is. Does not import vscode and does not touch the disk: `exists` is passed in.
 *
 * Invariant: a path that the user set is the only one tried. A setting that points nowhere is an error, never a
 * silent fall back to another binary.
 */
import * as path from "node:path";

/** What the search may look at. All paths are absolute; `pathVariable` is `$PATH` as it is. */
export interface SearchInputs {
  /** The setting `riptrace.path`; empty when it is not set. */
  readonly configured: string;
  /** The roots of the open folders, the first one first. */
  readonly workspaceFolders: readonly string[];
  readonly pathVariable: string | undefined;
  readonly homeDirectory: string;
  /** Whether this path is a file that may be run. */
  readonly isExecutable: (file: string) => boolean;
}

export type SearchResult =
  | { readonly kind: "found"; readonly path: string }
  /** `message` says what is wrong and what to do, in one paragraph for a notification. */
  | { readonly kind: "missing"; readonly message: string };

const BINARY = "riptrace";

export function findBinary(inputs: SearchInputs): SearchResult {
  const configured = inputs.configured.trim();
  if (configured !== "") {
    return findConfigured(configured, inputs);
  }
  const candidates = candidatePaths(inputs);
  const found = candidates.find(inputs.isExecutable);
  if (found !== undefined) {
    return { kind: "found", path: found };
  }
  return {
    kind: "missing",
    message:
      "RipTrace: no riptrace binary on PATH, in target/release of the workspace, in ~/.cargo/bin or in ~/.local/bin. " +
      "Build it (cargo build --release) or copy it to ~/.local/bin, or set riptrace.path to where it is.",
  };
}

function findConfigured(configured: string, inputs: SearchInputs): SearchResult {
  const expanded = expandPath(configured, inputs.homeDirectory, inputs.workspaceFolders[0]);
  if (!path.isAbsolute(expanded)) {
    return {
      kind: "missing",
      message: `RipTrace: the setting riptrace.path is '${configured}', which is not an absolute path. Give one, or clear the setting to search PATH.`,
    };
  }
  if (!inputs.isExecutable(expanded)) {
    return {
      kind: "missing",
      message: `RipTrace: the setting riptrace.path names '${expanded}', which is not a file that can be run. Correct it, or clear it to search PATH.`,
    };
  }
  return { kind: "found", path: expanded };
}

/** Where a binary is looked for when none is set, in order. */
export function candidatePaths(inputs: SearchInputs): string[] {
  // A relative entry of PATH would mean another file in every folder: it is left out.
  const onPath = (inputs.pathVariable ?? "").split(path.delimiter).filter((directory) => path.isAbsolute(directory));
  return [
    ...onPath,
    ...inputs.workspaceFolders.map((folder) => path.join(folder, "target", "release")),
    path.join(inputs.homeDirectory, ".cargo", "bin"),
    path.join(inputs.homeDirectory, ".local", "bin"),
  ].map((directory) => path.join(directory, BINARY));
}

/** `~` and `${workspaceFolder}` at the front of a setting; VS Code does not expand them in settings. */
export function expandPath(text: string, homeDirectory: string, workspaceFolder: string | undefined): string {
  if (text === "~" || text.startsWith("~/")) {
    return path.join(homeDirectory, text.slice(1));
  }
  if (workspaceFolder !== undefined) {
    return text.replace(/^\$\{workspaceFolder\}/, () => workspaceFolder);
  }
  return text;
}
