"""Verifies tokens as a resource server in Python would: PyJWT with its JWKS client. One JSON object a line, in and out.

Arguments: JWKS URL, issuer, audience, how long the JWK Set may be kept and how long to wait between fetches for unknown keys, in seconds (`-` for
PyJWT's defaults), and the User-Agent. In: {"token": …}. Out: {"ok": true} or {"ok": false, "error": …}.
"""

import json
import sys

import jwt

url, issuer, audience, lifespan, cooldown, agent = sys.argv[1:7]
options = {}
if lifespan != "-":
    options = {"lifespan": float(lifespan), "cooldown_duration": float(cooldown)}
client = jwt.PyJWKClient(url, headers={"User-Agent": agent}, **options)

for line in sys.stdin:
    token = json.loads(line)["token"]
    try:
        key = client.get_signing_key_from_jwt(token)
        algorithms = ["RS256", "PS256", "ES256", "EdDSA"]
        # Clocks are one machine's; `iat` has whole seconds.
        jwt.decode(token, key, algorithms=algorithms, audience=audience, issuer=issuer, leeway=1)
        answer = {"ok": True}
    except Exception as error:  # whatever it is, the test wants to know
        answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)
