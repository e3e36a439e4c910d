// Secrets that callers show.

const encoder = new TextEncoder();

/** Whether `shown` is `expected`, in a time that depends on neither: digests have one length. */
export async function isSame(shown: string, expected: string): Promise<boolean> {
  const [left, right] = await Promise.all([shown, expected].map((text) => crypto.subtle.digest("SHA-256", encoder.encode(text))));
  return crypto.subtle.timingSafeEqual(left as ArrayBuffer, right as ArrayBuffer);
}
