/**
 * What the timeline's page and the extension say to each other. Imports neither vscode nor the DOM.
 *
 * The page is drawn in a sandbox: what comes from it is checked here before it is acted on.
 */
import { count, DecodeError, fields, text } from "../decode";
import type { Request } from "./model";

export type FromPage =
  /** The page is drawn, or drawn anew, and wants to know of the session. */
  | { readonly type: "ready" }
  | { readonly type: "ask"; readonly id: number; readonly request: Request; readonly args: object }
  /** Show this hit in the debugger. */
  | { readonly type: "open"; readonly seq: number }
  | { readonly type: "attach" };

export type ToPage =
  /** Another session, or none. */
  | { readonly type: "session"; readonly name: string | undefined }
  /** What was answered before may be another now. */
  | { readonly type: "changed" }
  | { readonly type: "answer"; readonly id: number; readonly body: unknown }
  | { readonly type: "refused"; readonly id: number; readonly why: string }
  /** A command of the palette. */
  | { readonly type: "do"; readonly action: Action };

export const ACTIONS = ["focusFilter", "zoomIn", "zoomOut", "showAll", "follow"] as const;
export type Action = (typeof ACTIONS)[number];

const REQUESTS: readonly string[] = ["timelinePage", "timelineOverview"] satisfies Request[];

/** Throws DecodeError. */
export function parseFromPage(value: unknown): FromPage {
  const message = fields(value, "message");
  const type = text(message["type"], "type");
  switch (type) {
    case "ready":
    case "attach":
      return { type };
    case "open":
      return { type, seq: count(message["seq"], "seq") };
    case "ask": {
      const request = text(message["request"], "request");
      if (!REQUESTS.includes(request)) {
        throw new DecodeError(`the page may not ask for '${request}'`);
      }
      return {
        type,
        id: count(message["id"], "id"),
        request: request as Request,
        args: fields(message["args"], "args"),
      };
    }
    default:
      throw new DecodeError(`'${type}' is no message of the timeline`);
  }
}
