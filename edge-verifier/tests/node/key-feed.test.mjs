// Where an isolate has its keys from, over hours: pushed as long as heads vouch for them, fetched where they don't. The clock and the issuer are
// ours here, everything else is the edge's own.

import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, mock, test } from "node:test";
import { KeyFeed } from "../../entry/keys.ts";
import { AUDIENCE, EMPTY_BASE, FakeIssuer, makeKey } from "../fake-issuer.mjs";
import { newVerifier } from "./support.mjs";

const MINUTE = 60_000;

describe("key feed", () => {
  let issuer;
  let verifier;
  let feed;
  /** How often the issuer was asked; what it answers, unless it is away. */
  let asked;
  let answer;
  let pending;
  const ctx = { waitUntil: (work) => pending.push(work) };

  beforeEach(async () => {
    mock.timers.enable({ apis: ["Date"], now: Date.now() });
    mock.method(console, "error", () => undefined);
    mock.method(console, "warn", () => undefined);
    mock.method(globalThis, "fetch", async () => {
      asked += 1;
      const answered = await answer();
      if (answered === undefined) throw new Error("away");
      return Response.json(answered);
    });
    asked = 0;
    pending = [];
    issuer = new FakeIssuer();
    issuer.url = "https://issuer.example";
    answer = async () => issuer.jwks();
    verifier = newVerifier();
    verifier.configure(issuer.url, [AUDIENCE], 5);
    await verifier.loadKeys("heads", JSON.stringify(issuer.headJwks()));
    feed = new KeyFeed(verifier, { jwksUrl: `${issuer.url}/.well-known/jwks.json` });
  });
  afterEach(() => mock.restoreAll() ?? mock.timers.reset());

  /** A head comes, as one does every second. */
  async function hear(changes = {}) {
    const outcome = await verifier.adoptHead(issuer.head(changes));
    if (outcome.kind === "needs-base") assert.equal(await verifier.loadBase(new Uint8Array(EMPTY_BASE).buffer), undefined);
    feed.noteHead(Date.now());
  }

  /** What a request does, to the end of what it started in the background. */
  async function ready() {
    const isReady = await feed.ready(ctx);
    await Promise.all(pending.splice(0));
    return isReady;
  }

  async function isAccepted(key) {
    await hear();
    return "identity" in (await verifier.verify(issuer.token({}, key).token, Math.floor(Date.now() / 1000)));
  }

  test("keys that heads vouch for are never fetched", async () => {
    await feed.take(issuer.keyStatement());
    for (let minute = 0; minute < 120; minute++) {
      await hear();
      assert.equal(await ready(), true);
      mock.timers.tick(MINUTE);
    }
    assert.equal(asked, 0);
  });

  test("when heads name none any more the issuer is asked after five minutes, and its answer replaces; the next push counts again", async () => {
    const [pushed, fetched, next] = [issuer.tokenKey, makeKey("fetched"), makeKey("next")];
    await feed.take(issuer.keyStatement());
    await hear();
    const { keyVersion } = issuer;
    issuer.keyVersion = 0;
    issuer.tokenKey = fetched;
    mock.timers.tick(4 * MINUTE);
    await hear();
    assert.equal(await ready(), true);
    assert.equal(asked, 0);
    mock.timers.tick(2 * MINUTE);
    assert.equal(await ready(), true);
    assert.equal(asked, 1);
    assert.deepEqual([await isAccepted(fetched), await isAccepted(pushed)], [true, false]);

    issuer.keyVersion = keyVersion;
    issuer.tokenKey = next;
    await feed.take(issuer.keyStatement());
    await hear();
    assert.deepEqual([await isAccepted(next), await isAccepted(fetched)], [true, false]);
    mock.timers.tick(4 * MINUTE);
    await ready();
    assert.equal(asked, 1);
  });

  test("a head that names a newer statement than the one held doesn't vouch for it", async () => {
    await feed.take(issuer.keyStatement());
    await hear();
    for (let minute = 0; minute < 6; minute++) {
      mock.timers.tick(MINUTE);
      await hear({ keys: issuer.keyVersion + 1 });
      await ready();
    }
    assert.equal(asked, 1);
  });

  test("an answer that was asked for before the push, and comes after it, takes none of its keys away", async () => {
    const [pushed, stale] = [issuer.tokenKey, makeKey("stale")];
    let arrive;
    answer = () => new Promise((resolve) => (arrive = resolve));
    const asking = feed.ready(ctx);
    await feed.take(issuer.keyStatement());
    await hear();
    issuer.tokenKey = stale;
    arrive(issuer.jwks());
    issuer.tokenKey = pushed;
    assert.equal(await asking, true);
    assert.equal(await isAccepted(pushed), true);
  });

  test("with nobody pushing and the issuer away, fetched keys stay good for a day", async () => {
    assert.equal(await ready(), true);
    answer = async () => undefined;
    mock.timers.tick(23 * 60 * MINUTE);
    assert.equal(await ready(), true);
    mock.timers.tick(61 * MINUTE);
    assert.equal(await ready(), false);
    answer = async () => issuer.jwks();
    mock.timers.tick(MINUTE);
    assert.equal(await ready(), true);
  });

  test("an unknown kid is asked about once in ten seconds, be the issuer there or away", async () => {
    await feed.take(issuer.keyStatement());
    await hear();
    assert.equal(await feed.renewForUnknownKey(ctx), "renewed");
    assert.equal(await feed.renewForUnknownKey(ctx), "recent");
    mock.timers.tick(11_000);
    answer = async () => undefined;
    // Nobody has vouched for the keys for a while and the issuer can't be asked: it isn't known whose the kid is.
    assert.equal(await feed.renewForUnknownKey(ctx), "failed");
    mock.timers.tick(11_000);
    await hear();
    assert.equal(await feed.renewForUnknownKey(ctx), "recent");
    assert.equal(await feed.renewForUnknownKey(ctx), "recent");
    assert.equal(asked, 3);
  });
});
