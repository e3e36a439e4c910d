// The edge with a dataset of Analytics Engine's that can be read: `GET /__points`.

import edge from "../../entry/index.ts";
import type { Env } from "../../entry/settings.ts";

export { TokenVerifier } from "../../entry/rpc.ts";

const points: AnalyticsEngineDataPoint[] = [];
const ANALYTICS = { writeDataPoint: (point: AnalyticsEngineDataPoint) => void points.push(point) };

export default {
  fetch(request: Request, env: Env, ctx: ExecutionContext): Response | Promise<Response> {
    if (new URL(request.url).pathname === "/__points") return Response.json(points);
    return edge.fetch(request as never, { ...env, ANALYTICS }, ctx);
  },
};
