/**
 * Which lines have a breakpoint, as the language server wants to know it: so that it can say in the text where one can
 * be taken by no running build, before any debug session asks for it.
 */

/** Notification to the language server: always the full set. */
export const BREAKPOINTS = "riptrace/breakpoints";

/** A breakpoint of a source file: what of `vscode.SourceBreakpoint` is needed here. */
export interface SourceLine {
  readonly uri: string;
  /** From 0. */
  readonly line: number;
  readonly enabled: boolean;
}

/** Lines of one document, from 0, ascending, each once. */
export interface DocumentLines {
  readonly uri: string;
  readonly lines: number[];
}

/** Groups breakpoints by document. Those that are switched off are left out. */
export function linesByDocument(breakpoints: readonly SourceLine[]): DocumentLines[] {
  const documents = new Map<string, Set<number>>();
  for (const { uri, line } of breakpoints.filter((breakpoint) => breakpoint.enabled)) {
    documents.set(uri, (documents.get(uri) ?? new Set()).add(line));
  }
  return [...documents].map(([uri, lines]) => ({ uri, lines: [...lines].sort((a, b) => a - b) }));
}
