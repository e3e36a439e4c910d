// A WebSocket that ends with the token it was opened with.

import { decide } from "./decision.ts";
import { type Isolate, failed } from "./isolate.ts";
import type { Staleness } from "./staleness.ts";

/** How often a token is looked at. It mostly takes no more than a look into a table. */
const LOOK_MS = 1_000;
/** RFC 6455 §7.4.1 and IANA's registry: the policy is violated; it can't be served now. */
const REFUSED = 1008;
const UNKNOWN = 1013;

/** Who opened it, and by which rules. */
export interface Opened {
  readonly token: string;
  readonly staleness: Staleness | undefined;
  readonly requestId: string;
}

/** The client's end of a WebSocket that goes on to `upstream`, for as long as the token holds. */
export function bounded(upstream: WebSocket, { token, staleness, requestId }: Opened, held: Isolate, ctx: ExecutionContext): WebSocket {
  const { 0: client, 1: server } = new WebSocketPair();
  for (const side of [server, upstream]) {
    side.accept();
    side.binaryType = "arraybuffer";
  }
  let isOver = false;
  const end = (code: number, reason: string) => {
    if (isOver) return;
    isOver = true;
    clearInterval(timer);
    for (const side of [server, upstream]) close(side, code, reason);
  };
  const look = async () => {
    try {
      const decision = await decide(token, held, ctx, staleness);
      if (decision instanceof Response) end(UNKNOWN, "It is not known at present what is revoked.");
      else if ("refused" in decision) end(decision.refused.challenge === "" ? UNKNOWN : REFUSED, `${decision.refused.description}.`);
    } catch (error) {
      failed(held, error, requestId);
      end(UNKNOWN, "The token could not be verified.");
    }
  };
  const timer = setInterval(() => void look(), LOOK_MS);
  for (const [from, to] of [[server, upstream], [upstream, server]] as const) {
    from.addEventListener("message", ({ data }) => {
      if (!isOver) to.send(data);
    });
    from.addEventListener("close", ({ code, reason }) => end(code, reason));
    from.addEventListener("error", () => end(1011, ""));
  }
  return client;
}

/** Some codes say only that there was none, and may not be sent (RFC 6455 §7.4.1). */
const NO_CODE = [1005, 1006, 1015];
/** An end said something that nobody may. */
const PROTOCOL_ERROR = 1002;

function close(side: WebSocket, code: number, reason: string): void {
  const isSendable = code >= 1000 && code < 5000 && code !== 1004;
  try {
    if (NO_CODE.includes(code)) side.close();
    // What isn't sendable would be an error, and this side stay open for good.
    else side.close(isSendable ? code : PROTOCOL_ERROR, isSendable ? reason : "");
  } catch {
    // It is closed.
  }
}
