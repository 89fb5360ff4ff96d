/**
 * Reading JSON that another program made: each reader returns what was asked for or throws a DecodeError that names the
 * place. Nothing is guessed and no list is longer than its reader allows. Does not import vscode.
 */

/** The most characters of one text that is kept: a name, a path or a message of a person is far below. */
export const TEXT_CHARACTERS_MAX = 64 * 1024;

export class DecodeError extends Error {}

export type Fields = Readonly<Record<string, unknown>>;

export function fields(value: unknown, place: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw wrong(place, "an object", value);
  }
  return value as Fields;
}

export function text(value: unknown, place: string): string {
  if (typeof value !== "string" || value.length > TEXT_CHARACTERS_MAX) {
    throw wrong(place, `a text of at most ${TEXT_CHARACTERS_MAX} characters`, value);
  }
  return value;
}

export function flag(value: unknown, place: string): boolean {
  if (typeof value !== "boolean") {
    throw wrong(place, "true or false", value);
  }
  return value;
}

/** A whole number from 0. Above 2^53 it is the nearest that JavaScript has. */
export function count(value: unknown, place: string): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < 0) {
    throw wrong(place, "a whole number from 0", value);
  }
  return value;
}

/** Any finite number. */
export function quantity(value: unknown, place: string): number {
  if (typeof value !== "number" || !Number.isFinite(value)) {
    throw wrong(place, "a number", value);
  }
  return value;
}

/** Undefined for what is absent or null, else what `read` makes of it. */
export function optional<T>(value: unknown, place: string, read: (value: unknown, place: string) => T): T | undefined {
  return value === undefined || value === null ? undefined : read(value, place);
}

/** A list of at most `max` entries; absent and null are the empty list. */
export function list<T>(
  value: unknown,
  place: string,
  max: number,
  read: (value: unknown, place: string) => T,
): readonly T[] {
  if (value === undefined || value === null) {
    return [];
  }
  if (!Array.isArray(value)) {
    throw wrong(place, "a list", value);
  }
  if (value.length > max) {
    throw new DecodeError(`${place} has ${value.length} entries; the most is ${max}`);
  }
  return value.map((entry, index) => read(entry, `${place}[${index}]`));
}

/** An object whose values are all texts; absent and null are the empty one. */
export function texts(value: unknown, place: string): ReadonlyMap<string, string> {
  const entries = Object.entries(optional(value, place, fields) ?? {});
  return new Map(entries.map(([key, entry]) => [key, text(entry, `${place}.${key}`)]));
}

function wrong(place: string, expected: string, value: unknown): DecodeError {
  const shown = JSON.stringify(value) ?? "nothing";
  return new DecodeError(`${place} must be ${expected}, not ${shown.length > 60 ? `${shown.slice(0, 60)}...` : shown}`);
}
