/**
 * Numbers and times as a person reads them. Imports neither vscode nor the DOM.
 */

/** Nanoseconds as a person reads them. */
export function duration(ns: number): string {
  const steps: [number, string][] = [
    [1e9, "s"],
    [1e6, "ms"],
    [1e3, "µs"],
  ];
  const [size, unit] = steps.find(([size]) => ns >= size) ?? [1, "ns"];
  const value = ns / size;
  return `${value >= 100 || unit === "ns" ? Math.round(value) : Number(value.toPrecision(3))} ${unit}`;
}

export function number(value: number): string {
  return value.toLocaleString("en-US");
}

export function plural(value: number, one: string, many = `${one}s`): string {
  return `${number(value)} ${value === 1 ? one : many}`;
}
