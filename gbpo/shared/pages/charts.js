"use strict";
const tip = document.getElementById("tip");
const W = 340, H = 190, LEFT = 42, RIGHT = 14, TOP = 8, BOTTOM = 32;

function draw(kind, attributes, parent, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return parent.appendChild(node);
}

function add(kind, parent, text, className) {
  const node = parent.appendChild(document.createElement(kind));
  if (text !== undefined) node.textContent = text;
  if (className) node.className = className;
  return node;
}

function show(x, y) {
  tip.hidden = false;
  tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${y - tip.offsetHeight - 14 > 8 ? y - tip.offsetHeight - 14 : y + 22}px`;
}

function short(value) {
  const size = Math.abs(value);
  return size && (size >= 1e5 || size < 1e-3) ? value.toExponential(1).replace(".0e", "e") : String(Number(value.toPrecision(3)));
}

function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(n * step);
  return found;
}

function axis(panel, lines) {
  const values = lines.flatMap((line) => [...(line.low ?? line.mean), ...(line.high ?? line.mean)]);
  const least = Math.min(...values), most = Math.max(...values);
  const log = !panel.stacked && least > 0 && most / least > 200;
  let low = log ? Math.log10(least) : Math.min(panel.anchor, least), high = log ? Math.log10(most) : Math.max(panel.anchor, most);
  if (high === low) high = low + 1;
  if (low !== panel.anchor || log) low -= 0.05 * (high - low);
  high += 0.05 * (high - low);
  const place = (value) => TOP + (H - TOP - BOTTOM) * (1 - ((log ? Math.log10(value) : value) - low) / (high - low));
  const marks = log ? ticks(low, high, 4).filter(Number.isInteger).map((power) => 10 ** power) : ticks(low, high, 4);
  return { place, marks, log };
}

// Lines with the same steps, each with the area between the sum of the lines before it and the sum with it.
function stack(lines) {
  let base = lines[0]?.mean.map(() => 0);
  return lines.map((line) => {
    const low = base;
    base = low.map((value, n) => value + line.mean[n]);
    return { ...line, low, high: base };
  });
}

// Draw lines over the optimiser steps. A panel has a title, a unit, an anchor that the vertical axis includes, and
// may be stacked. A line has a name, the index of its colour, steps, means, and may have a low and a high end.
function chart(parent, panel, given, colours) {
  if (!given.length) return undefined;
  const lines = panel.stacked ? stack(given) : given;
  const figure = add("figure", parent);
  const { place, marks, log } = axis(panel, lines);
  add("span", add("figcaption", figure, panel.title), panel.unit + (log ? ", log scale" : ""));
  const ends = lines.map((line) => `${line.name} ends at ${short(line.mean.at(-1))}`).join("; ");
  const svg = draw("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, tabindex: 0, role: "img", "aria-label": `${panel.title} over the optimiser steps: ${ends}. Use the arrow keys to read the values.` }, figure);
  const last = Math.max(...lines.map((line) => line.steps.at(-1))) || 1;
  const across = (step) => LEFT + ((W - LEFT - RIGHT) * step) / last;
  const colour = (line) => `a${line.index % colours}`;
  for (const mark of marks) {
    draw("path", { class: "grid", d: `M${LEFT} ${place(mark)}H${W - RIGHT}` }, svg);
    draw("text", { x: LEFT - 6, y: place(mark) + 4, "text-anchor": "end" }, svg, short(mark));
  }
  for (const step of ticks(0, last, 4)) draw("text", { x: across(step), y: H - 17, "text-anchor": step ? "middle" : "start" }, svg, short(step));
  draw("text", { x: (LEFT + W - RIGHT) / 2, y: H - 3, "text-anchor": "middle" }, svg, "optimiser step");
  const path = (steps, values) => steps.map((step, n) => `${across(step).toFixed(1)} ${place(values[n]).toFixed(1)}`).join("L");
  for (const line of lines) {
    if (line.low) draw("path", { class: `${colour(line)} ${panel.stacked ? "area" : "band"}`, d: `M${path(line.steps, line.low)}L${path(line.steps.toReversed(), line.high.toReversed())}Z` }, svg);
    if (!panel.stacked) draw("path", { class: `${colour(line)} line`, d: `M${path(line.steps, line.mean)}` }, svg);
    if (line.steps.length === 1) draw("circle", { class: colour(line), cx: across(line.steps[0]), cy: place(panel.stacked ? line.high[0] : line.mean[0]), r: 3 }, svg);
  }
  const cursor = draw("g", {}, svg);
  const steps = [...new Set(lines.flatMap((line) => line.steps))].sort((a, b) => a - b);
  let at = steps.length - 1;

  function read(n) {
    at = Math.max(0, Math.min(steps.length - 1, n));
    cursor.replaceChildren();
    tip.replaceChildren();
    draw("path", { class: "cursor", d: `M${across(steps[at])} ${TOP}V${H - BOTTOM}` }, cursor);
    add("b", tip, `${panel.title}, step ${steps[at]}`);
    for (const line of lines) {
      const n = line.steps.indexOf(steps[at]);
      if (n < 0) continue;
      const row = add("div", tip);
      if (!panel.stacked) draw("circle", { class: colour(line), cx: across(steps[at]), cy: place(line.mean[n]), r: 3.5 }, cursor);
      add("i", row, "", colour(line));
      add("span", row, line.name);
      add("span", row, short(line.mean[n]) + (line.low && !panel.stacked ? ` (${short(line.low[n])} to ${short(line.high[n])})` : ""));
    }
    const box = svg.getBoundingClientRect();
    show(box.left + (across(steps[at]) * box.width) / W, box.top + TOP);
  }
  function point(event) {
    const box = svg.getBoundingClientRect();
    const step = ((((event.clientX - box.left) * W) / box.width - LEFT) * last) / (W - LEFT - RIGHT);
    read(steps.reduce((best, other, n) => (Math.abs(other - step) < Math.abs(steps[best] - step) ? n : best), 0));
  }
  function leave() {
    cursor.replaceChildren();
    tip.hidden = true;
  }
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  svg.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && leave());
  svg.addEventListener("focus", () => svg.matches(":focus-visible") && read(at));
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -steps.length, End: steps.length }[event.key];
    if (move) { event.preventDefault(); read(at + move); }
  });
  return figure;
}
