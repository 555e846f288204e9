const data = JSON.parse(document.getElementById("data").textContent);

function charts(point) {
  const parent = document.getElementById("charts");
  parent.replaceChildren();
  data.panels.forEach((panel, n) => {
    const lines = data.points[point].panels[n].flatMap((line, index) => (line ? [{ ...line, index, name: data.algorithms[index] }] : []));
    chart(parent, panel, lines, data.colours);
  });
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
