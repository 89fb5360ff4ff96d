/**
 * Which local file a path of a build means: the one with the longest common end. Does not import vscode.
 */

/** How many path segments, from the file's name backwards, two paths share. */
export function commonEnd(left: string, right: string): number {
  const [a, b] = [segments(left), segments(right)];
  let shared = 0;
  while (shared < a.length && shared < b.length && a[a.length - 1 - shared] === b[b.length - 1 - shared]) {
    shared += 1;
  }
  return shared;
}

/** Of these local paths, those that share the longest end with the build's path; none when not even the name is the same. */
export function bestMatches(local: readonly string[], wanted: string): string[] {
  const scored = local.map((file) => ({ file, shared: commonEnd(file, wanted) }));
  const most = Math.max(0, ...scored.map(({ shared }) => shared));
  return most === 0 ? [] : scored.filter(({ shared }) => shared === most).map(({ file }) => file);
}

/** The name of the file, without its folders. */
export function fileName(path: string): string {
  return segments(path).at(-1) ?? path;
}

function segments(path: string): string[] {
  return path.split(/[\\/]/).filter((segment) => segment !== "");
}
