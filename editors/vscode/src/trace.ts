/**
 * One log line for one message of the debug adapter protocol. Does not import vscode.
 */

export type TraceLevel = "off" | "messages" | "verbose";

/** The most characters of one message that the log keeps: a page of variables can be megabytes. */
export const TRACE_CHARACTERS_MAX = 4_000;

/** `direction` is as the adapter sees it. Undefined when this level does not log it. */
export function traceLine(level: TraceLevel, direction: "in" | "out", message: unknown): string | undefined {
  if (level === "off") {
    return undefined;
  }
  const arrow = direction === "in" ? "editor -> adapter" : "adapter -> editor";
  const head = `${arrow}: ${summary(message)}`;
  if (level === "messages") {
    return head;
  }
  const json = JSON.stringify(message);
  const shown =
    json.length > TRACE_CHARACTERS_MAX ? `${json.slice(0, TRACE_CHARACTERS_MAX)}... (${json.length} characters)` : json;
  return `${head} ${shown}`;
}

function summary(message: unknown): string {
  if (typeof message !== "object" || message === null) {
    return "not a message";
  }
  const { seq, type, command, event, request_seq, success } = message as Record<string, unknown>;
  switch (type) {
    case "request":
      return `request ${seq} ${command}`;
    case "response":
      return `response to ${request_seq} ${command}${success === false ? " (failed)" : ""}`;
    case "event":
      return `event ${event}`;
    default:
      return "not a message";
  }
}
