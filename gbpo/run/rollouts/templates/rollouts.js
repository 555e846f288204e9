"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const AT_ONCE = 20;
let shown = AT_ONCE, matching = [];

function add(kind, parent, text, className) {
  const node = parent.appendChild(document.createElement(kind));
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

function number(value) {
  return typeof value === "number" ? String(Number(value.toPrecision(3))).replace("-", "−") : value ?? "none";
}

function textOf(content) {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return content == null ? "" : JSON.stringify(content);
  return content.map((part) => part.text ?? `[${part.type}]`).join("");
}

function messagesOf(value, role) {
  return typeof value === "string" ? [{ role, content: value }] : value;
}

function searchable(one) {
  return JSON.stringify([one.prompt, one.completion]).replaceAll("\\n", " ").toLowerCase();
}

const groups = data.flatMap((generation) => generation.groups.map((group, place) => {
  const completions = group.completions.map((one, number) => {
    const row = { ...group.row, ...one.row };
    return { ...one, number, prompt: row.prompt, statuses: one.statuses, search: searchable({ ...one, prompt: row.prompt }) };
  });
  return { generation, place, row: group.row, completions, panes: [] };
}));

function stepsOf(generation) {
  const [first, last] = generation.steps;
  return first === last ? `${first}` : `${first}–${last}`;
}

function option(select, value, text) {
  add("option", select, text).value = value;
}

function fillFilters() {
  option(at("step"), "", "all");
  data.forEach((generation, n) => option(at("step"), n, stepsOf(generation)));
  const statuses = new Map();
  for (const { completions } of groups)
    for (const one of completions)
      for (const [column, value] of Object.entries(one.statuses))
        if (typeof value === "string" && value.length <= 60) {
          const key = JSON.stringify([column, value]);
          statuses.set(key, (statuses.get(key) ?? 0) + 1);
        }
  option(at("status"), "", "all");
  for (const [key, count] of [...statuses].sort()) option(at("status"), key, `${JSON.parse(key).join(": ")} (${count})`);
  at("status").parentElement.hidden = !statuses.size;
}

function matches(one) {
  const low = at("low").value, high = at("high").value;
  if (low !== "" && !(typeof one.reward === "number" && one.reward >= Number(low))) return false;
  if (high !== "" && !(typeof one.reward === "number" && one.reward <= Number(high))) return false;
  if (at("status").value) {
    const [column, value] = JSON.parse(at("status").value);
    if (one.statuses[column] !== value) return false;
  }
  return one.search.includes(at("search").value.toLowerCase());
}

function filter() {
  const step = at("step").value;
  matching = groups.filter((group) => {
    if (step !== "" && group.generation !== data[Number(step)]) return false;
    group.matching = group.completions.filter(matches);
    const ranked = [...group.matching].sort((a, b) => (b.reward ?? -Infinity) - (a.reward ?? -Infinity));
    group.panes = ranked.length > 1 ? [ranked[0], ranked.at(-1)] : ranked;
    return ranked.length;
  });
  shown = AT_ONCE;
  const count = matching.reduce((sum, group) => sum + group.matching.length, 0);
  at("count").textContent = `${count.toLocaleString("en")} completion${count === 1 ? "" : "s"} in ${matching.length.toLocaleString("en")} group${matching.length === 1 ? "" : "s"}. Each group shows its highest and its lowest reward; choose others by their numbers.`;
  draw();
}

function draw() {
  at("groups").replaceChildren(...matching.slice(0, shown).map(card));
  at("more").hidden = matching.length <= shown;
  legend();
}

function shade() {
  return document.querySelector("[name=shade]:checked").value;
}

function legend() {
  const line = at("legend"), by = shade();
  line.hidden = by === "none";
  line.replaceChildren();
  if (by === "none") return;
  const [low, high] = data[0].bounds, scale = add("span", line, undefined, "scale");
  add("span", scale, by === "ratio" ? number(low) : `−${number(1 - low)}`);
  add("i", scale);
  add("span", scale, by === "ratio" ? number(high) : `+${number(high - 1)}`);
  const what = by === "ratio" ? "The ratio in the last update that used the completion; full colour at the bounds. " : "The ratio in the last update minus the completion's target; full colour where the distance is that of a bound. ";
  add("span", line, `${what}Tokens with a dotted line are not in the loss: a tool wrote them, or the completion was too old.`);
}

function card(group) {
  const { generation, place } = group, node = document.createElement("article");
  const head = add("header", node);
  add("h2", head, `Step ${stepsOf(generation)} · group ${place + 1}`);
  const facts = Object.entries(group.row).filter(([name]) => name !== "prompt").map(([name, value]) => {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    return `${name}: ${text.length > 120 ? `${text.slice(0, 120)}…` : text}`;
  });
  if (generation.replaced_groups) facts.push(`${generation.drawn_groups} groups were drawn and ${generation.replaced_groups} were not trained on`);
  if (facts.length) add("span", head, facts.join(" · "), "quiet");
  const shared = group.row.prompt !== undefined;
  if (shared) chat(node, messagesOf(group.row.prompt, "prompt"), "prompt");
  const chips = add("div", node, undefined, "chips");
  const panes = add("div", node, undefined, "panes");
  chips.setAttribute("aria-label", "Completions of the group");
  let next = 1;
  function redraw() {
    chips.replaceChildren();
    for (const one of group.completions) {
      const chip = add("button", chips, undefined, one.advantage > 0 ? "up" : one.advantage < 0 ? "down" : "");
      chip.type = "button";
      chip.disabled = !group.matching.includes(one);
      const sign = one.advantage > 0 ? "positive" : one.advantage < 0 ? "negative" : "zero";
      chip.title = `completion ${one.number + 1}: reward ${number(one.reward)}, ${sign} advantage`;
      chip.setAttribute("aria-pressed", group.panes.includes(one));
      add("i", chip);
      add("small", chip, one.number + 1);
      add("span", chip, number(one.reward));
      chip.addEventListener("click", () => {
        if (group.panes.includes(one)) return;
        group.panes[Math.min(next, group.panes.length)] = one;
        next = 1 - next;
        redraw();
        chips.children[one.number].focus();
      });
    }
    panes.replaceChildren(...group.panes.map((one) => pane(one, generation, shared)));
  }
  redraw();
  return node;
}

function pane(one, generation, promptShown) {
  const node = document.createElement("section");
  node.className = "pane";
  const facts = add("dl", node, undefined, "facts");
  const fact = (name, value) => { const row = add("div", facts); add("dt", row, name); add("dd", row, value); };
  fact("completion", one.number + 1);
  fact("reward", number(one.reward));
  if (Object.keys(one.rewards).length > 1) for (const [name, value] of Object.entries(one.rewards)) fact(name, number(value));
  fact("advantage", number(one.advantage));
  if (one.target_ratio !== undefined) fact("target ρ*", number(one.target_ratio));
  for (const [name, value] of Object.entries(one.statuses)) fact(name, typeof value === "string" ? value : number(value));
  if (one.sampled_after !== generation.steps[0] - 1) fact("sampled", `after step ${one.sampled_after}`);
  if (one.round) fact("drawn in round", one.round + 1);
  if (!one.trained) fact("loss", "not run: no signal, or too old");
  if (!promptShown) chat(node, messagesOf(one.prompt, "prompt"), "prompt");
  if (shade() === "none") chat(node, messagesOf(one.completion, "completion"));
  else if (one.ratios) tokens(node, one, generation);
  else {
    chat(node, messagesOf(one.completion, "completion"));
    add("p", node, one.trained ? "The ratios of this completion are left out." : "No ratio: no update ran this completion.", "quiet");
  }
  return node;
}

function chat(parent, messages, className = "") {
  for (const message of messages) {
    const role = message.role, kind = ["assistant", "completion"].includes(role) ? "assistant" : role === "tool" ? "tool" : "other";
    const node = add("div", parent, undefined, `message ${kind} ${className}`);
    add("b", node, role === "tool" && message.name ? `tool ${message.name}` : role);
    for (const thought of [message.reasoning_content, message.thinking]) if (thought) add("pre", node, thought, "args").dir = "auto";
    const text = textOf(message.content), calls = message.tool_calls ?? [];
    if (text || !calls.length) add(text ? "pre" : "span", node, text || "(empty)", text ? "" : "quiet").dir = "auto";
    for (const call of calls) {
      const asked = call.function ?? call, given = asked.arguments;
      const line = add("pre", node, `${asked.name}(`, "call");
      add("span", line, typeof given === "string" ? given : JSON.stringify(given ?? {}), "args");
      line.append(")");
    }
  }
}

function tokens(parent, one, generation) {
  const [low, high] = generation.bounds, by = shade(), target = one.target_ratio ?? 1;
  if (by === "target" && one.target_ratio === undefined) add("p", parent, "GRPO has no target, so the distance is to 1.", "quiet");
  const node = add("div", parent, undefined, "message assistant");
  add("b", node, "tokens");
  const text = add("pre", node);
  one.ids.forEach((id, n) => {
    const ratio = one.ratios.length === 1 ? one.ratios[0] : one.ratios[n];
    const token = generation.vocabulary[id] ?? "", span = add("span", text, token);
    if (one.own && !one.own[n] || typeof ratio !== "number") {
      span.className = "token unshaded";
      span.title = "not in the loss";
      return;
    }
    const distance = by === "ratio" ? ratio - 1 : ratio - target;
    const strength = Math.min(1, Math.abs(distance) / (distance > 0 ? high - 1 : 1 - low));
    span.className = `token ${distance > 0 ? "over" : "under"}`;
    span.style.setProperty("--w", `${Math.round(100 * strength)}%`);
    const logp = one.logps[n];
    span.title = `ρ ${number(ratio)}, ρ − ρ* ${number(ratio - target)}${typeof logp === "number" ? `, log-prob ${number(logp)}` : ""}`;
  });
}

fillFilters();
at("filter").addEventListener("input", (event) => (event.target.name === "shade" ? draw() : filter()));
at("filter").addEventListener("submit", (event) => event.preventDefault());
at("more").addEventListener("click", () => { shown += AT_ONCE; draw(); });
filter();
