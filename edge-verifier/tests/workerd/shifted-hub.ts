// The hubs as they are, on a host whose clock is wrong, as faults.test.mjs says.

import "./shifted-clock.ts";

export { default, RevocationHub } from "../../hub/index.ts";
