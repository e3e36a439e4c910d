"use strict";
// Shows the description that is beside this page, and lets requests be tried. Everything goes into the page as text, never as markup.
(() => {
  const METHODS = ["get", "post", "put", "patch", "delete"];
  const byId = (id) => document.getElementById(id);
  let api;

  /** An element with attributes (`on…`: listeners) and children. */
  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === undefined || value === false) continue;
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else made.setAttribute(key, value === true ? "" : value);
    }
    made.append(...children.flat().filter((child) => child !== undefined && child !== null));
    return made;
  }

  /** Paragraphs, and `code`. */
  function prose(text) {
    return (text ?? "").split(/\n\n+/).filter(Boolean).map((paragraph) =>
      element("p", {}, paragraph.split(/(`[^`]+`)/).map((part) =>
        part.length > 2 && part.startsWith("`") ? element("code", {}, part.slice(1, -1)) : part)));
  }

  /** What a reference stands for, with its siblings; how deep it was nested bounds the walk. */
  function resolve(object) {
    if (!object || !object.$ref) return object ?? {};
    const { $ref, ...siblings } = object;
    const target = $ref.replace(/^#\//, "").split("/").reduce((at, key) => at?.[key.replace(/~1/g, "/").replace(/~0/g, "~")], api);
    const found = resolve(target);
    const properties = siblings.properties ? { ...found.properties } : found.properties;
    for (const [name, more] of Object.entries(siblings.properties ?? {})) properties[name] = { ...properties[name], ...more };
    return { ...found, ...siblings, ...(properties ? { properties } : {}) };
  }

  /** A schema's kind in a few words. */
  function kind(given) {
    const schema = resolve(given);
    const variants = schema.oneOf ?? schema.anyOf;
    if (variants) return variants.map(kind).join(" or ");
    if (schema.const !== undefined) return JSON.stringify(schema.const);
    if (schema.type === "array") return `array of ${kind(schema.items)}`;
    return [schema.type ?? "any"].flat().join(" or ") + (schema.format ? ` (${schema.format})` : "");
  }

  /** A schema's bounds in a few words. */
  function bounds(given) {
    const schema = resolve(given);
    const all = [schema, ...(schema.oneOf ?? schema.anyOf ?? []).map(resolve)];
    const said = all.flatMap((part) => [
      part.minLength !== undefined || part.maxLength !== undefined ? `${part.minLength ?? 0} to ${part.maxLength ?? "any number of"} characters` : "",
      part.minimum !== undefined || part.maximum !== undefined ? `${part.minimum ?? "…"} to ${part.maximum ?? "…"}` : "",
      part.maxItems !== undefined ? `at most ${part.maxItems} entries` : "",
      part.maxProperties !== undefined ? `at most ${part.maxProperties} members` : "",
      part.uniqueItems ? "all different" : "",
      part.items && part.type === "array" ? bounds(part.items) && `each ${bounds(part.items)}` : "",
      part.pattern ? `matches ${part.pattern}` : "",
      part.default !== undefined ? `default ${JSON.stringify(part.default)}` : "",
    ]);
    return said.filter(Boolean).join("; ");
  }

  function words(given) {
    const schema = resolve(given);
    const listed = schema.enum ?? (schema.oneOf ?? []).map(resolve).find((part) => part.enum)?.enum;
    return listed ? element("div", {}, listed.flatMap((word, place) => [place ? " · " : "", element("code", {}, String(word))])) : undefined;
  }

  /** The members of an object, as a table. */
  function members(given, depth = 0) {
    const schema = resolve(given);
    const inner = schema.type === "array" ? resolve(schema.items) : schema;
    const object = inner.properties ? inner : (inner.oneOf ?? inner.anyOf ?? []).map(resolve).find((part) => part.properties);
    if (!object || depth > 4) return undefined;
    const required = new Set(object.required ?? []);
    const rows = Object.entries(object.properties).map(([name, member]) =>
      element("tr", {},
        element("td", {}, element("code", { class: required.has(name) ? "required" : undefined }, name)),
        element("td", {}, kind(member), words(member), element("div", { class: "dim" }, bounds(member))),
        element("td", {}, prose(resolve(member).description), nested(member, depth))));
    return element("table", {}, element("tbody", {}, rows));
  }

  function nested(member, depth) {
    const table = members(member, depth + 1);
    return table && element("div", { class: "nested" }, table);
  }

  /** Something that a request could send. */
  function example(given, depth = 0) {
    const schema = resolve(given);
    if (schema.example !== undefined) return schema.example;
    if (schema.enum) return schema.enum[0];
    if (schema.oneOf ?? schema.anyOf) return example((schema.oneOf ?? schema.anyOf).find((part) => kind(part) !== "null"), depth);
    switch ([schema.type].flat()[0]) {
      case "array": return [];
      case "integer": case "number": return schema.minimum ?? 1;
      case "boolean": return false;
      case "object": {
        const required = new Set(schema.required ?? []);
        if (depth > 3) return {};
        return Object.fromEntries(Object.entries(schema.properties ?? {}).filter(([name]) => required.has(name))
          .map(([name, member]) => [name, example(member, depth + 1)]));
      }
      default: return { email: "agent@example.com", uuid: "00000000-0000-4000-8000-000000000000", "date-time": "2027-01-01T00:00:00Z" }[schema.format] ?? "text";
    }
  }

  const parametersOf = (item, operation) => [...(item.parameters ?? []), ...(operation.parameters ?? [])].map(resolve);

  function security(operation) {
    const schemes = (operation.security ?? []).flatMap((requirement) => Object.entries(requirement));
    if (!schemes.length) return element("p", { class: "dim" }, "Open to everybody.");
    return element("p", {}, "Authentication: ", schemes.map(([name, scopes], place) => [
      place ? " or " : "", element("span", { title: api.components.securitySchemes[name]?.description ?? "" }, name),
      scopes.length ? [", scope ", scopes.map((scope) => element("code", {}, scope))] : []]).flat(3));
  }

  function responses(operation) {
    const rows = Object.entries(operation.responses).map(([status, given]) => {
      const answer = resolve(given);
      const [type, content] = Object.entries(answer.content ?? {})[0] ?? [];
      const headers = Object.keys(answer.headers ?? {});
      const table = status < "400" && content ? members(content.schema) : undefined;
      return element("tr", {},
        element("td", { class: "status" }, status),
        element("td", {}, prose(answer.description),
          element("div", { class: "dim" }, [type, headers.length ? `headers: ${headers.join(", ")}` : ""].filter(Boolean).join("; ")),
          table && element("details", {}, element("summary", {}, "members"), table)));
    });
    return element("table", {}, element("tbody", {}, rows));
  }

  function attempt(method, path, item, operation) {
    const parameters = parametersOf(item, operation);
    const inputs = parameters.map((parameter) => [parameter, element("input", {
      "aria-label": parameter.name, placeholder: kind(parameter.schema), spellcheck: "false", autocomplete: "off" })]);
    const [type, content] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
    const isForm = type === "application/x-www-form-urlencoded";
    const start = content && (isForm ? new URLSearchParams(example(content.schema)).toString() : JSON.stringify(example(content.schema), null, 2));
    const body = type && element("textarea", { "aria-label": "body", spellcheck: "false" });
    if (body) body.value = start;
    const outcome = element("div", { "aria-live": "polite" });
    const isClient = (operation.security ?? []).some((requirement) => "client" in requirement);
    const [client, secret] = ["client_id", "client_secret"].map((name) =>
      element("input", { "aria-label": name, placeholder: name, type: name === "client_secret" ? "password" : "text", autocomplete: "off", spellcheck: "false" }));

    async function send() {
      outcome.replaceChildren(element("p", { class: "dim" }, "…"));
      let target = path;
      const query = new URLSearchParams();
      const headers = new Headers();
      const token = byId("token").value.trim();
      try {
        if (isClient && client.value) {
          const part = (text) => new URLSearchParams({ a: text }).toString().slice(2);
          headers.set("authorization", `Basic ${btoa(`${part(client.value)}:${part(secret.value)}`)}`);
        } else if (token && !isClient) headers.set("authorization", `Bearer ${token}`);
        if (type) headers.set("content-type", type);
        for (const [parameter, input] of inputs) {
          if (!input.value && parameter.in !== "path") continue;
          if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
          else if (parameter.in === "query") query.append(parameter.name, input.value);
          else if (parameter.in === "header") headers.set(parameter.name, input.value);
        }
        // The API is beside this page, wherever a proxy has put both.
        const url = new URL(`.${target}${query.size ? `?${query}` : ""}`, location.href);
        const answer = await fetch(url, { method: method.toUpperCase(), headers, body: body?.value, credentials: "omit", redirect: "manual", cache: "no-store" });
        let text = await answer.text();
        try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { /* it isn't JSON */ }
        const shown = [...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
        outcome.replaceChildren(element("h4", {}, `${answer.status} ${answer.statusText}`), element("pre", {}, shown), text ? element("pre", {}, text) : "");
      } catch (problem) {
        outcome.replaceChildren(element("p", {}, `No answer: ${problem.message}`));
      }
    }

    const table = inputs.length ? element("table", {}, element("tbody", {}, inputs.map(([parameter, input]) => element("tr", {},
      element("td", {}, element("code", { class: parameter.required ? "required" : undefined }, parameter.name), element("div", { class: "dim" }, parameter.in)),
      element("td", {}, input),
      element("td", {}, prose(parameter.description), element("span", { class: "dim" }, kind(parameter.schema), " ", bounds(parameter.schema)), words(parameter.schema)))))) : undefined;
    return [
      table && element("h4", {}, "Parameters"), table,
      type && element("h4", {}, `Body: ${type}`), type && members(content.schema), body,
      isClient && element("p", {}, client, " ", secret),
      element("button", { type: "button", onclick: send }, "Send"), outcome,
    ].filter(Boolean);
  }

  function show(method, path, item, operation) {
    const id = operation.operationId ?? `${method}${path}`;
    const box = element("details", { class: "operation", id, ontoggle: () => {
      // Made when it is first looked at.
      if (!box.open || box.children.length > 1) return;
      box.append(element("div", { class: "inside" }, prose(operation.description), security(operation), attempt(method, path, item, operation),
        element("h4", {}, "Answers"), responses(operation)));
    } }, element("summary", {}, element("span", { class: `method ${method}` }, method), element("span", { class: "path" }, path), element("span", { class: "dim" }, operation.summary ?? "")));
    const text = [method, path, operation.summary, operation.description, ...Object.values(operation.responses).map((answer) => resolve(answer).description)].join(" ").toLowerCase();
    const link = element("a", { href: `#${id}`, onclick: () => { box.open = true; } }, element("span", { class: `method ${method}` }, method), element("span", {}, path));
    return { box, link, text };
  }

  function filter(groups) {
    const wanted = byId("filter").value.trim().toLowerCase();
    for (const { shown, heads } of groups) {
      for (const { box, link, text } of shown) box.hidden = link.hidden = !text.includes(wanted);
      for (const head of heads) head.hidden = shown.every(({ box }) => box.hidden);
    }
  }

  function open() {
    const box = location.hash.length > 1 && byId(decodeURIComponent(location.hash.slice(1)));
    if (box instanceof HTMLDetailsElement) { box.open = true; box.scrollIntoView(); }
  }

  async function start() {
    const answer = await fetch(new URL("openapi.json", location.href), { credentials: "omit" });
    if (!answer.ok) throw new Error(`openapi.json: ${answer.status}`);
    api = await answer.json();
    byId("about").replaceChildren(`Version ${api.info.version}. `, ...prose(api.info.description).flatMap((paragraph) => [...paragraph.childNodes]));
    const all = Object.entries(api.paths).flatMap(([path, item]) => METHODS.filter((method) => item[method]).map((method) => ({ path, item, method, operation: item[method] })));
    const groups = api.tags.map((tag) => {
      const shown = all.filter(({ operation }) => operation.tags?.includes(tag.name)).map(({ path, item, method, operation }) => show(method, path, item, operation));
      return { tag, shown, heads: [element("h3", {}, tag.name), element("div", {}, element("h2", {}, tag.name), prose(tag.description))] };
    }).filter(({ shown }) => shown.length);
    byId("list").replaceChildren(...groups.flatMap(({ heads, shown }) => [heads[0], ...shown.map(({ link }) => link)]));
    byId("operations").replaceChildren(...groups.flatMap(({ heads, shown }) => [heads[1], ...shown.map(({ box }) => box)]));
    byId("filter").addEventListener("input", () => filter(groups));
    addEventListener("hashchange", open);
    open();
  }

  start().catch((problem) => byId("operations").replaceChildren(element("p", {}, `The description can't be shown: ${problem.message}`)));
})();
