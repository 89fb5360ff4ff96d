/**
 * The process of the debug adapter: `riptrace dap` on its standard streams. Does not import vscode.
 *
 * VS Code can start an executable itself, but then throws its standard error away, where the adapter says what went
 * wrong. Invariant: every request that was sent is answered, by the adapter or, when it has ended, here.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { encodeMessage, FramingError, MessageReader } from "./framing";

/** An adapter that was told to disconnect ends at once; after this time it is ended. */
export const END_GRACE_MS = 3_000;
/** Lines of standard error that are told when the adapter ends unexpectedly: the last one is the reason. */
const LAST_LINES_MAX = 5;

interface Request {
  readonly seq: number;
  readonly type: "request";
  readonly command: string;
}

export interface AdapterListener {
  /** A message for the editor, from the adapter or made here for an adapter that is gone. */
  onMessage(message: object): void;
  /** A line of the adapter's standard error. */
  onLog(line: string): void;
  /** Once, when the process has ended; `how` is a phrase such as "exit status 1". */
  onEnd(how: string): void;
}

export class AdapterProcess {
  private readonly child: ChildProcess;
  private readonly reader = new MessageReader();
  private readonly pending = new Map<number, Request>();
  private readonly lastLines: string[] = [];
  /** Why the adapter is gone. */
  private ended: string | undefined;
  /** The editor has asked for the end: then there is nothing to tell. */
  private disposed = false;

  constructor(
    binary: string,
    cwd: string | undefined,
    private readonly listener: AdapterListener,
  ) {
    this.child = spawn(binary, ["dap"], { cwd, stdio: ["pipe", "pipe", "pipe"] });
    this.child.on("error", (error) => this.end(error.message));
    // "close" comes after the last byte of both streams, "exit" may come before.
    this.child.on("close", (code, signal) => this.end(signal ?? `exit status ${code}`));
    this.child.stdout?.on("data", (chunk: Buffer) => this.received(chunk));
    // A write to an adapter that has ended: its end is told by "close".
    this.child.stdin?.on("error", () => undefined);
    this.readLog();
  }

  /** A message from the editor. */
  send(message: object): void {
    if (isRequest(message)) {
      if (this.ended !== undefined) {
        this.refuse(message, this.ended);
        return;
      }
      this.pending.set(message.seq, message);
    }
    this.child.stdin?.write(encodeMessage(message));
  }

  /** Ends the process: by the end of its input, then by a signal. */
  dispose(): void {
    this.disposed = true;
    this.child.stdin?.end();
    const timer = setTimeout(() => this.child.kill("SIGTERM"), END_GRACE_MS);
    this.child.once("close", () => clearTimeout(timer));
  }

  private received(chunk: Buffer): void {
    if (this.ended !== undefined) {
      return;
    }
    try {
      for (const message of this.reader.push(chunk)) {
        this.deliver(message);
      }
    } catch (error) {
      if (!(error instanceof FramingError)) {
        throw error;
      }
      this.end(`it does not speak the debug adapter protocol: ${error.message}`);
      this.child.kill("SIGTERM");
    }
  }

  private deliver(message: unknown): void {
    if (typeof message !== "object" || message === null) {
      return;
    }
    const { type, request_seq } = message as { type?: unknown; request_seq?: unknown };
    if (type === "response" && typeof request_seq === "number") {
      this.pending.delete(request_seq);
    }
    this.listener.onMessage(message);
  }

  private readLog(): void {
    let rest = "";
    this.child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      lines.forEach((line) => this.logged(line));
    });
    this.child.stderr?.on("end", () => {
      if (rest !== "") {
        this.logged(rest);
      }
    });
  }

  private logged(line: string): void {
    this.lastLines.push(line);
    if (this.lastLines.length > LAST_LINES_MAX) {
      this.lastLines.shift();
    }
    this.listener.onLog(line);
  }

  private end(how: string): void {
    if (this.ended !== undefined) {
      return;
    }
    const words = this.lastLines.filter((line) => line.trim() !== "").join("\n");
    this.ended = `the debug adapter has ended (${how})${words === "" ? "" : `: ${words}`}`;
    this.listener.onEnd(how);
    for (const request of this.pending.values()) {
      this.refuse(request, this.ended);
    }
    this.pending.clear();
    if (!this.disposed) {
      // Without it the editor would show a session that is none.
      this.listener.onMessage({ seq: 0, type: "event", event: "terminated", body: {} });
    }
  }

  private refuse(request: Request, why: string): void {
    this.listener.onMessage({
      seq: 0,
      type: "response",
      request_seq: request.seq,
      success: false,
      command: request.command,
      message: why,
      body: { error: { id: 1, format: `RipTrace: ${why.replaceAll("{", "(").replaceAll("}", ")")}`, showUser: true } },
    });
  }
}

function isRequest(message: object): message is Request {
  const { seq, type, command } = message as { seq?: unknown; type?: unknown; command?: unknown };
  return type === "request" && typeof seq === "number" && typeof command === "string";
}
