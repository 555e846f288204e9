"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
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
  const log = least > 0 && most / least > 200;
  let low = log ? Math.log10(least) : Math.min(panel.anchor, least), high = log ? Math.log10(most) : Math.max(panel.anchor, most);
  if (high === low) high = low + 1;
  if (low !== panel.anchor || log) low -= 0.05 * (high - low);
  high += 0.05 * (high - low);
  const place = (value) => TOP + (H - TOP - BOTTOM) * (1 - ((log ? Math.log10(value) : value) - low) / (high - low));
  const marks = log ? ticks(low, high, 4).filter(Number.isInteger).map((power) => 10 ** power) : ticks(low, high, 4);
  return { place, marks, log };
}

function chart(panel, lines) {
  const drawn = lines.flatMap((line, index) => (line ? [{ ...line, index }] : []));
  if (!drawn.length) return;
  const figure = add("figure", document.getElementById("charts"));
  const { place, marks, log } = axis(panel, drawn);
  add("span", add("figcaption", figure, panel.title), panel.unit + (log ? ", log scale" : ""));
  const ends = drawn.map((line) => `${data.algorithms[line.index]} ends at ${short(line.mean.at(-1))}`).join("; ");
  const svg = draw("svg", { viewBox: `0 0 ${W} ${H}`, tabindex: 0, role: "img", "aria-label": `${panel.title} over the optimiser steps: ${ends}. Use the arrow keys to read the values.` }, figure);
  const last = Math.max(...drawn.map((line) => line.steps.at(-1)));
  const across = (step) => LEFT + ((W - LEFT - RIGHT) * step) / last;
  for (const mark of marks) {
    draw("path", { class: "grid", d: `M${LEFT} ${place(mark)}H${W - RIGHT}` }, svg);
    draw("text", { x: LEFT - 6, y: place(mark) + 4, "text-anchor": "end" }, svg, short(mark));
  }
  for (const step of ticks(0, last, 4)) draw("text", { x: across(step), y: H - 17, "text-anchor": step ? "middle" : "start" }, svg, short(step));
  draw("text", { x: (LEFT + W - RIGHT) / 2, y: H - 3, "text-anchor": "middle" }, svg, "optimiser step");
  const path = (steps, values) => steps.map((step, n) => `${across(step).toFixed(1)} ${place(values[n]).toFixed(1)}`).join("L");
  for (const line of drawn) {
    const colour = `a${line.index % data.dashes.length}`;
    if (line.low) draw("path", { class: `${colour} band`, d: `M${path(line.steps, line.low)}L${path(line.steps.toReversed(), line.high.toReversed())}Z` }, svg);
    draw("path", { class: `${colour} line`, d: `M${path(line.steps, line.mean)}` }, svg);
    if (line.steps.length === 1) draw("circle", { class: colour, cx: across(line.steps[0]), cy: place(line.mean[0]), r: 3 }, svg);
  }
  const cursor = draw("g", {}, svg);
  const steps = [...new Set(drawn.flatMap((line) => line.steps))].sort((a, b) => a - b);
  let at = steps.length - 1;

  function read(n) {
    at = Math.max(0, Math.min(steps.length - 1, n));
    cursor.replaceChildren();
    tip.replaceChildren();
    draw("path", { class: "cursor", d: `M${across(steps[at])} ${TOP}V${H - BOTTOM}` }, cursor);
    add("b", tip, `${panel.title}, step ${steps[at]}`);
    for (const line of drawn) {
      const n = line.steps.indexOf(steps[at]);
      if (n < 0) continue;
      const colour = `a${line.index % data.dashes.length}`, row = add("div", tip);
      draw("circle", { class: colour, cx: across(steps[at]), cy: place(line.mean[n]), r: 3.5 }, cursor);
      add("i", row, "", colour);
      add("span", row, data.algorithms[line.index]);
      add("span", row, short(line.mean[n]) + (line.low ? ` (${short(line.low[n])} to ${short(line.high[n])})` : ""));
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
}

function charts(point) {
  document.getElementById("charts").replaceChildren();
  data.panels.forEach((panel, n) => chart(panel, data.points[point].panels[n]));
}

const select = document.getElementById("point");
if (data.points.length) charts(select ? Number(select.value) : 0);
select?.addEventListener("change", () => charts(Number(select.value)));

function ofCell(event) {
  const cell = event.target.closest("[data-tip]");
  if (!cell) { if (event.type === "pointerdown" && !event.target.closest("figure")) tip.hidden = true; return; }
  const box = cell.getBoundingClientRect();
  tip.textContent = cell.dataset.tip;
  show(box.left, box.top);
}
for (const type of ["pointerover", "pointerdown", "focusin"]) document.addEventListener(type, ofCell);
for (const type of ["pointerout", "focusout"]) document.addEventListener(type, (event) => { if (event.target.closest("[data-tip]") && event.pointerType !== "touch") tip.hidden = true; });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") tip.hidden = true;
  const cell = event.target.closest("[data-tip]"), row = cell?.parentElement;
  const next = { ArrowLeft: cell?.previousElementSibling, ArrowRight: cell?.nextElementSibling,
    ArrowUp: row?.previousElementSibling?.children[cell.cellIndex], ArrowDown: row?.nextElementSibling?.children[cell.cellIndex] }[event.key];
  if (next?.dataset.tip) { event.preventDefault(); next.focus(); }
});
