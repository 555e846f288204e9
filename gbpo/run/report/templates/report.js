const data = JSON.parse(document.getElementById("data").textContent);

function legend(figure, panel, lines) {
  const list = add("p", figure, undefined, "legend");
  for (const line of lines) {
    const name = add("span", list, undefined, "name");
    const key = draw("svg", { class: `key${panel.stacked ? " area" : ""}`, viewBox: "0 0 24 8", "aria-hidden": true }, name);
    draw("path", { class: `a${line.index % data.colours}`, d: "M1 4h22" }, key);
    add("span", name, line.name);
  }
}

const parent = document.getElementById("charts");
parent?.replaceChildren();
for (const panel of data.panels) {
  // The first colour of the palette is the grey of baselines, so it comes last.
  const lines = panel.lines.map((line, place) => ({ ...line, index: place + 1 }));
  const figure = chart(parent, panel, lines, data.colours);
  if (figure && lines.length > 1) legend(figure, panel, lines);
}
