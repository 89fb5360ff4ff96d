/**
 * Messages of the debug adapter protocol on a stream of bytes: `Content-Length: N`, an empty line, N bytes of JSON.
 * Does not import vscode and reads nothing itself: bytes in, messages out.
 */

/** A header is one line of about 25 bytes; more than this is no adapter that talks. */
export const HEADER_BYTES_MAX = 4 * 1024;
/** The largest message is a page of variables; more than this would only stall the editor. */
export const CONTENT_BYTES_MAX = 64 * 1024 * 1024;

const HEADER_END = "\r\n\r\n";

/** The stream is not the protocol: what comes after cannot be understood either. */
export class FramingError extends Error {}

export function encodeMessage(message: unknown): Buffer {
  const content = Buffer.from(JSON.stringify(message), "utf8");
  return Buffer.concat([Buffer.from(`Content-Length: ${content.length}${HEADER_END}`, "ascii"), content]);
}

export class MessageReader {
  private chunks: Buffer[] = [];
  private bytes = 0;
  /** Bytes of the content that is being read; undefined while a header is. */
  private expected: number | undefined;

  /** The messages that are complete with this chunk, in order. Throws FramingError; then the reader is of no more use. */
  push(chunk: Buffer): unknown[] {
    this.chunks.push(chunk);
    this.bytes += chunk.length;
    const messages: unknown[] = [];
    while (this.readHeader() && this.expected !== undefined && this.bytes >= this.expected) {
      const content = this.take(this.expected);
      this.expected = undefined;
      messages.push(parse(content));
    }
    return messages;
  }

  /** Whether a header has been read. */
  private readHeader(): boolean {
    if (this.expected !== undefined) {
      return true;
    }
    const buffered = this.joined();
    const end = buffered.indexOf(HEADER_END);
    if (end < 0) {
      if (buffered.length > HEADER_BYTES_MAX) {
        throw new FramingError(`no end of a header within ${HEADER_BYTES_MAX} bytes: ${shown(buffered)}`);
      }
      return false;
    }
    const header = buffered.subarray(0, end).toString("ascii");
    const length = /^content-length: *(\d+)\r?$/im.exec(header)?.[1];
    if (length === undefined) {
      throw new FramingError(`a header without Content-Length: ${shown(buffered)}`);
    }
    if (Number(length) > CONTENT_BYTES_MAX) {
      throw new FramingError(`a message of ${length} bytes; the most is ${CONTENT_BYTES_MAX}`);
    }
    this.take(end + HEADER_END.length);
    this.expected = Number(length);
    return true;
  }

  /** All that is buffered, as one chunk. Called only while a header is read, so nothing large is joined again. */
  private joined(): Buffer {
    const buffered = this.chunks.length === 1 ? (this.chunks[0] as Buffer) : Buffer.concat(this.chunks, this.bytes);
    this.chunks = [buffered];
    return buffered;
  }

  private take(count: number): Buffer {
    const buffered = this.joined();
    this.chunks = [buffered.subarray(count)];
    this.bytes -= count;
    return buffered.subarray(0, count);
  }
}

function parse(content: Buffer): unknown {
  try {
    return JSON.parse(content.toString("utf8")) as unknown;
  } catch {
    throw new FramingError(`a message that is not JSON: ${shown(content)}`);
  }
}

/** The start of bytes that were not understood, for the log. */
function shown(bytes: Buffer): string {
  return JSON.stringify(bytes.subarray(0, 80).toString("utf8"));
}
