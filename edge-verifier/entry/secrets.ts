// Secrets that a request shows.

/** Whether a request shows `secret`, as a bearer. Takes a time that depends on neither: digests have one length. */
export async function hasSecret(request: Request, secret: string): Promise<boolean> {
  const shown = request.headers.get("authorization") ?? "";
  const [left, right] = await Promise.all(
    [shown, `Bearer ${secret}`].map((text) => crypto.subtle.digest("SHA-256", new TextEncoder().encode(text))),
  );
  return crypto.subtle.timingSafeEqual(left as ArrayBuffer, right as ArrayBuffer);
}
