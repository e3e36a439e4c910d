// Secrets that a request shows.

const encoder = new TextEncoder();

/** Whether a request shows `secret`, as a bearer. */
export function hasSecret(request: Request, secret: string): Promise<boolean> {
  return isSame(request.headers.get("authorization") ?? "", `Bearer ${secret}`);
}

/** Whether `shown` is `secret`, in a time that depends on neither: digests have one length. */
export async function isSame(shown: string, secret: string): Promise<boolean> {
  const [left, right] = await Promise.all([shown, secret].map((text) => crypto.subtle.digest("SHA-256", encoder.encode(text))));
  return crypto.subtle.timingSafeEqual(left as ArrayBuffer, right as ArrayBuffer);
}
