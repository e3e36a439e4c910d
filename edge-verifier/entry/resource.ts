// The APIs that the edge stands for, as far as they are found by a URL (RFC 9728).

export const WELL_KNOWN = "/.well-known/oauth-protected-resource";

/** An audience that is a URL, and so may be found by its metadata. */
export interface Resource {
  /** Exactly as tokens name it. */
  readonly id: string;
  readonly origin: string;
  /** Without a slash at the end. */
  readonly path: string;
  readonly query: string;
  /** Where its metadata is (RFC 9728 §3.1): the well-known part comes between host and path. */
  readonly metadata: string;
}

/** The audiences that are URLs; `preferred` first, which stands for the others where it isn't clear which one is meant. */
export function readResources(audiences: readonly string[], preferred: string | undefined): Resource[] {
  const found = audiences.flatMap((id) => {
    const url = URL.canParse(id) ? new URL(id) : undefined;
    if ((url?.protocol !== "https:" && url?.protocol !== "http:") || url.hash !== "") return [];
    const [{ origin, search: query }, path] = [url, url.pathname.replace(/\/$/, "")];
    return [{ id, origin, path, query, metadata: `${origin}${WELL_KNOWN}${path}${query}` }];
  });
  return found.sort((one, other) => Number(other.id === preferred) - Number(one.id === preferred));
}

/** The resource that `url` belongs to: of those of its origin the most specific; else the preferred one. */
export function resourceOf(url: string, resources: readonly Resource[]): Resource | undefined {
  const { origin, pathname } = new URL(url);
  const around = resources.filter((one) => one.origin === origin && `${pathname}/`.startsWith(`${one.path}/`));
  return around.reduce<Resource | undefined>((one, other) => (one && one.path.length >= other.path.length ? one : other), undefined) ?? resources[0];
}
