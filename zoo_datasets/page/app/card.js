// One network: settings, curves, first filters, nearest neighbors, twins; and the table of those selected.

import { canvas, fill, h, shorten } from "./dom.js";
import { isDark } from "./colors.js";
import { curvesView } from "./charts.js";
import { label, number, text } from "./data.js";

const MOST_ROWS = 12; // of the table, a page

export function cardView(state) {
  const { zoo } = state;
  const box = h("div", { class: "card", id: "card", tabindex: -1, "aria-live": "polite" });
  const accuracy = curvesView(state, ["test_accuracy", "validation_accuracy"], () => (state.focus < 0 ? [] : [state.focus]));
  const loss = curvesView(state, ["test_loss", "train_loss"], () => (state.focus < 0 ? [] : [state.focus]));
  const filters = filterCanvas(state);

  function show() {
    const m = state.focus;
    if (m < 0) {
      box.replaceChildren(h("div", { class: "empty" }, h("p", {}, h("b", {}, "No network is open.")), h("p", {}, "Choose a point of the map, or a row of the table, to see its settings, curves, filters, neighbors and twins.")));
      return;
    }
    const rows = (role) => zoo.columns.filter((c) => role.includes(c.role)).map((c) => [h("dt", { class: "cut", title: c.doc || c.name }, c.name), h("dd", { class: "cut", title: text(c, m) }, text(c, m))]);
    const shared = Object.entries(zoo.header.settings);
    fill(box,
      h("header", {}, h("h3", {}, h("code", {}, shorten(zoo.ids[m], 24))), h("span", { class: "row" }, h("button", { type: "button", title: "Previous", "aria-label": "Previous network", onclick: () => go(-1) }, "‹"), h("button", { type: "button", title: "Next", "aria-label": "Next network", onclick: () => go(1) }, "›"), h("button", { type: "button", "aria-label": "Close the network", onclick: () => state.setFocus(-1) }, "×"))),
      h("dl", { class: "facts" }, rows(["axis"]), rows(["metric"]).slice(0, 14)),
      h("div", { class: "pair" }, accuracy, loss),
      filters.has(m) ? h("section", {}, h("h4", {}, filters.title(m)), filters.element) : null,
      neighbors(m), ...twins(m),
      h("details", {}, h("summary", {}, `All settings (${number(zoo.columns.length + shared.length)})`), h("dl", { class: "facts" }, rows(["factor", "other"]), shared.map(([name, v]) => [h("dt", { class: "cut", title: name }, name), h("dd", { class: "cut", title: label(v) }, typeof v === "number" ? number(v) : label(v))]))),
    );
    state.soon(filters.paint);
  }

  function go(by) {
    for (let i = 1; i <= zoo.n; i++) { const m = (state.focus + by * i + zoo.n * i) % zoo.n; if (state.selected[m]) { state.setFocus(m); return; } }
  }

  const link = (m, words) => h("button", { type: "button", class: "link", onclick: () => state.setFocus(m), onpointerenter: () => state.setHover(m), onpointerleave: () => state.setHover(-1) }, h("code", {}, shorten(zoo.ids[m], 10)), words);
  const main = zoo.columns.filter((c) => c.role === "axis");

  function neighbors(m) {
    const width = zoo.neighbors.length / zoo.n, found = [];
    for (let i = 0; i < width; i++) { const other = zoo.neighbors[m * width + i]; if (other >= 0) found.push([other, zoo.distances[m * width + i]]); }
    const differs = (o) => main.filter((c) => text(c, o) !== text(c, m)).map((c) => `${shorten(c.name, 16)} ${shorten(text(c, o), 16)}`).join(", ") || "same settings";
    return h("section", {}, h("h4", {}, "Nearest in weight space"),
      found.length ? h("ul", { class: "others" }, found.map(([o, d]) => h("li", {}, link(o), h("span", { class: "num" }, d.toFixed(3)), h("span", { class: "cut soft", title: differs(o) }, differs(o))))) : h("p", { class: "note" }, "No other network has its architecture, or its weights are not there."),
      found.length ? h("p", { class: "note" }, "Among networks of its architecture, in canonical form; 0 is the same network, 1 a stranger.") : null);
  }

  function twins(m) {
    return zoo.twins.map(({ axis, group }) => {
      const column = zoo.byName.get(axis), found = [];
      for (let o = 0; o < zoo.n; o++) if (group[o] === group[m] && o !== m) found.push(o);
      const target = zoo.target;
      const change = (o) => {
        if (!target) return "";
        const d = target.values[o] - target.values[m];
        return Number.isFinite(d) ? `${d >= 0 ? "+" : "−"}${number(Math.abs(Number(d.toPrecision(3))))}` : "–";
      };
      return h("section", {}, h("h4", {}, `Twins along ${shorten(axis, 30)}`),
        found.length ? h("table", { class: "twins" }, h("thead", {}, h("tr", {}, h("th", {}, "network"), h("th", {}, shorten(axis, 20)), target && h("th", { class: "num" }, `Δ ${target.name}`))), h("tbody", {}, found.slice(0, 30).map((o) => h("tr", {}, h("td", {}, link(o)), h("td", { class: "cut", title: text(column, o) }, text(column, o)), target && h("td", { class: "num" }, change(o)))))) : h("p", { class: "note" }, "None is on this page."),
        h("p", { class: "note" }, `They share its first weights and the order of its batches; here ${shorten(axis, 20)} is ${shorten(text(column, m), 40)}.`));
    });
  }

  state.on("focus", show);
  show();
  return box;
}

/** First-layer filters as images: blue below zero, orange above, gray at it; color where there are three channels. */
function filterCanvas(state) {
  const { zoo } = state;
  const shapeOf = (m) => zoo.header.filters.find((f) => zoo.header.maps[zoo.layout[m]]?.layout === f.layout);
  const has = (m) => zoo.filterStart[m] >= 0 && Number.isFinite(zoo.filterScales[m]) && Boolean(shapeOf(m));
  const { element, paint } = canvas({ class: "filters", role: "img", "aria-label": "First-layer filters" }, (context, width) => {
    const m = state.focus;
    if (m < 0 || !has(m)) return;
    const f = shapeOf(m), gap = 4, per = Math.min(f.count, Math.max(4, Math.floor(width / 40))), side = Math.floor((width - gap * (per - 1)) / per);
    const tall = Math.max(1, Math.round((side * f.rows) / f.columns)), needed = Math.ceil(f.count / per) * (tall + gap);
    if (Math.abs(element.clientHeight - needed) > 1) { element.style.height = `${needed}px`; }
    const size = f.channels * f.rows * f.columns, start = zoo.filterStart[m];
    const image = document.createElement("canvas"); image.width = f.columns; image.height = f.rows;
    const inner = image.getContext("2d"), zero = isDark() ? [38, 40, 46] : [240, 239, 235], low = isDark() ? [106, 169, 233] : [31, 111, 180], high = isDark() ? [240, 160, 75] : [217, 115, 13];
    context.imageSmoothingEnabled = false;
    for (let u = 0; u < f.count; u++) {
      const data = inner.createImageData(f.columns, f.rows);
      for (let p = 0; p < f.rows * f.columns; p++) for (let k = 0; k < 3; k++) {
        const at = start + u * size + (f.channels === 3 ? k * f.rows * f.columns : 0) + p, v = zoo.filters[at] / 127;
        data.data[4 * p + k] = f.channels === 3 ? 127.5 + 127.5 * v : zero[k] + Math.abs(v) * ((v < 0 ? low : high)[k] - zero[k]);
        data.data[4 * p + 3] = 255;
      }
      inner.putImageData(data, 0, 0);
      context.drawImage(image, (u % per) * (side + gap), Math.floor(u / per) * (tall + gap), side, tall);
    }
  });
  state.on("theme", () => state.soon(paint));
  return { element, paint, has, title: (m) => { const f = shapeOf(m); return `First-layer filters${f.count < f.of ? `, ${f.count} of ${f.of}` : ""} (${f.rows} × ${f.columns})`; } };
}

/** The selected networks, sorted by what is chosen. */
export function tableView(state, chosenColumns) {
  const { zoo } = state;
  let page = 0, by = zoo.target ?? null, down = true;
  const box = h("div", { class: "scroller" });
  const where = h("span", { class: "soft" });
  function show() {
    const rows = [];
    for (let m = 0; m < zoo.n; m++) if (state.selected[m]) rows.push(m);
    if (by) rows.sort((a, b) => {
      const [x, y] = [by.values[a], by.values[b]], [p, q] = [Number.isNaN(x), Number.isNaN(y)];
      return p || q ? p - q : (down ? y - x : x - y) || a - b;
    });
    const pages = Math.max(1, Math.ceil(rows.length / MOST_ROWS));
    page = Math.min(page, pages - 1);
    where.textContent = `page ${number(page + 1)} of ${number(pages)}`;
    const columns = chosenColumns();
    const head = (c) => h("th", { scope: "col", class: c.isNumber ? "num" : null, "aria-sort": c === by ? (down ? "descending" : "ascending") : null },
      h("button", { type: "button", class: "link cut", title: c.name, onclick: () => { down = by === c ? !down : true; by = c; page = 0; show(); } }, shorten(c.name, 22), c === by ? (down ? " ↓" : " ↑") : ""));
    box.replaceChildren(rows.length ? h("table", { class: "rows" }, h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "network"), columns.map(head))),
      h("tbody", {}, rows.slice(page * MOST_ROWS, (page + 1) * MOST_ROWS).map((m) => h("tr", { class: m === state.focus ? "on" : null },
        h("th", { scope: "row" }, h("button", { type: "button", class: "link", onclick: () => state.setFocus(m), onpointerenter: () => state.setHover(m), onpointerleave: () => state.setHover(-1) }, h("code", {}, shorten(zoo.ids[m], 18)))),
        columns.map((c) => h("td", { class: c.isNumber ? "num" : "cut", title: text(c, m) }, text(c, m))))))) : h("p", { class: "empty" }, "No network is selected. Widen a brush, or clear the selection."));
  }
  const turn = (d) => { page = Math.max(0, page + d); show(); };
  state.on("rest focus", show);
  show();
  return h("div", {}, box, h("div", { class: "tools" }, h("button", { type: "button", onclick: () => turn(-1) }, "Previous"), h("button", { type: "button", onclick: () => turn(1) }, "Next"), where));
}
