// Parallel coordinates: an axis for each setting and metric, a line for each network, brushes on the axes.

import { announce, canvas, h, shorten, svg, ticks } from "./dom.js";
import { ink, scale } from "./colors.js";
import { hasLevels, levelCount, levelLabel, levelOf, number, share } from "./data.js";

const TOP = 54, BOTTOM = 26, SIDE = 54, LEAST = 104; // pixels
const MOST_LINES = 2500, MOST_MOVING = 180; // drawn at rest, and while something is dragged
const MOST_LABELS = 12;
const MOST_AXES = 10;

export function parallelView(state) {
  const { zoo } = state;
  const usable = zoo.columns.filter((c) => !c.isEmpty);
  if (!usable.length) return h("p", { class: "empty" }, "No column varies between these networks.");
  let axes = firstAxes(zoo, usable), colors = scale(state.color), size = [0, 0];
  const over = svg("svg", { class: "over", "aria-hidden": "true" });
  const { element, paint } = canvas({ class: "lines", "aria-hidden": "true" }, draw);
  const heads = h("div", { class: "heads" });
  const stage = h("div", { class: "stage parallel" }, element, over, heads);
  const scroller = h("div", { class: "scroller" }, stage);
  const note = h("p", { class: "note" });

  // A place between 0 (bottom) and 1 (top); null lies below the axis.
  const place = (c, m) => {
    if (hasLevels(c)) { const k = levelOf(c, m), n = levelCount(c); return k < 0 ? -0.09 : n > 1 ? k / (n - 1) : 0.5; }
    const v = c.values[m];
    if (!Number.isFinite(v)) return -0.09;
    const to = c.isLog ? Math.log : (x) => x;
    return c.high > c.low ? share(to(v), to(c.low), to(c.high)) : 0.5;
  };
  let places = [];
  const x = (i) => (axes.length > 1 ? SIDE + (i * (size[0] - 2 * SIDE)) / (axes.length - 1) : size[0] / 2);
  let below = 0; // room for those without a value
  const y = (t) => TOP + (1 - t) * (size[1] - TOP - BOTTOM - below);

  function prepare() {
    below = axes.some(missing) ? 26 : 0;
    places = axes.map((c) => Float32Array.from({ length: zoo.n }, (_, m) => {
      // Lines of one level are spread a little, else thousands lie on one.
      const t = place(c, m), spread = hasLevels(c) ? Math.min(0.06, 0.3 / levelCount(c)) : 0;
      return t + spread * (((m * 0.61803) % 1) - 0.5);
    }));
    stage.style.minWidth = `${2 * SIDE + (axes.length - 1) * LEAST}px`;
  }

  function draw(context, width, height) {
    if (size[0] !== width || size[1] !== height) { size = [width, height]; drawAxes(); }
    const { line } = ink();
    const most = state.isMoving ? MOST_MOVING : MOST_LINES;
    const path = (m) => { for (let i = 0; i < axes.length; i++) { const px = x(i), py = y(places[i][m]); if (i) context.lineTo(px, py); else context.moveTo(px, py); } };
    if (state.isActive) {
      context.strokeStyle = line; context.lineWidth = 1; context.globalAlpha = 0.35; context.beginPath();
      let drawn = 0;
      for (let i = 0; i < zoo.n && drawn < most / 3; i++) { const m = zoo.order[i]; if (!state.selected[m]) { path(m); drawn++; } }
      context.stroke();
    }
    const byColor = colors.palette.map(() => []);
    let drawn = 0;
    for (let i = 0; i < zoo.n && drawn < most; i++) { const m = zoo.order[i]; if (state.selected[m]) { byColor[colors.of(m)].push(m); drawn++; } }
    context.globalAlpha = Math.max(0.12, Math.min(0.75, 60 / Math.max(1, drawn)));
    byColor.forEach((members, i) => {
      context.strokeStyle = colors.palette[i];
      for (let k = 0; k < members.length; k += 64) { context.beginPath(); for (const m of members.slice(k, k + 64)) path(m); context.stroke(); }
    });
    context.globalAlpha = 1;
    for (const m of [state.hover, state.focus]) if (m >= 0) { context.strokeStyle = ink().text; context.lineWidth = 2; context.beginPath(); path(m); context.stroke(); }
    note.textContent = !state.isMoving && state.count > MOST_LINES ? `${MOST_LINES.toLocaleString("en-US")} of ${state.count.toLocaleString("en-US")} lines are drawn, a random sample; brushes select from all.` : "";
  }

  function drawAxes() {
    over.setAttribute("viewBox", `0 0 ${size[0]} ${size[1]}`);
    over.replaceChildren();
    heads.replaceChildren();
    axes.forEach((c, i) => {
      const group = svg("g");
      group.append(svg("line", { x1: x(i), x2: x(i), y1: y(0), y2: y(1), class: "axis" }));
      const mark = (t, label) => group.append(svg("line", { x1: x(i) - 3, x2: x(i) + 3, y1: y(t), y2: y(t), class: "axis" }), textAt(x(i) + 7, y(t), shorten(label, 13), label));
      if (hasLevels(c)) {
        const n = levelCount(c), every = Math.ceil(n / MOST_LABELS);
        for (let k = 0; k < n; k += every) mark(n > 1 ? k / (n - 1) : 0.5, levelLabel(c, k));
      } else if (c.isLog) {
        const low = Math.log10(c.low), span = Math.log10(c.high) - low || 1;
        const whole = ticks(low, low + span, 5).filter(Number.isInteger);
        for (const t of whole.length ? whole : [low, low + span]) mark((t - low) / span, number(10 ** t));
      } else for (const v of ticks(c.low, c.high, 5)) mark(c.high > c.low ? share(v, c.low, c.high) : 0.5, number(v));
      if (missing(c)) mark(-0.09, "none");
      const range = svg("rect", { x: x(i) - 9, width: 18, y: 0, height: 0, rx: 3, class: "brush", "data-brush": c.name });
      const grip = svg("rect", { x: x(i) - 20, width: 40, y: TOP - 10, height: Math.max(1, size[1] - TOP - 6), class: "grip", "data-axis": c.name });
      drag(grip, c);
      group.append(range, grip);
      over.append(group);
      const head = h("button", { type: "button", class: "head", title: `${c.name}${c.doc ? `: ${c.doc}` : ""}`, "aria-haspopup": "dialog", onclick: () => edit(c) }, shorten(c.name, 20));
      head.style.left = `${x(i)}px`;
      head.style.maxWidth = `${Math.max(60, (size[0] - 2 * SIDE) / Math.max(1, axes.length - 1) - 6)}px`;
      heads.append(head);
    });
    showBrushes();
  }
  const textAt = (px, py, shown, whole) => { const t = svg("text", { x: px, y: py, dy: "0.32em" }); t.textContent = shown; const full = svg("title"); full.textContent = whole; t.append(full); return t; };
  const missing = (c) => (hasLevels(c) ? c.values.some((_, m) => levelOf(c, m) < 0) : c.missing > 0);

  function showBrushes() {
    axes.forEach((c, i) => {
      const range = state.brushes.get(c.name), box = over.querySelectorAll("[data-brush]")[i];
      if (!range || (range.levels ? !range.levels.size : range.low > range.high)) { box.setAttribute("height", 0); return; }
      let [low, high] = [0, 1];
      if (range.levels) {
        const n = levelCount(c), at = [...range.levels].map((k) => (k < 0 ? -0.09 : n > 1 ? k / (n - 1) : 0.5));
        const half = Math.min(0.06, 0.4 / Math.max(1, n - 1));
        low = Math.min(...at) - half; high = Math.max(...at) + half;
        box.classList.toggle("gaps", Math.round((high - low) * Math.max(1, n - 1)) > range.levels.size);
      } else {
        // A bound that was typed may lie beyond the axis.
        const to = c.isLog ? Math.log : (v) => v, on = (v) => share(to(Math.max(c.low, Math.min(c.high, v))), to(c.low), to(c.high));
        low = on(range.low); high = on(range.high);
      }
      box.setAttribute("y", y(high) - 2); box.setAttribute("height", Math.max(4, y(low) - y(high) + 4));
    });
    for (const [i, head] of [...heads.children].entries()) head.classList.toggle("on", state.brushes.has(axes[i].name));
  }

  /** Drag along an axis: what lies between is selected, be it nothing. A click on a level toggles it, elsewhere it clears. */
  function drag(grip, c) {
    let from = null;
    const at = (event) => { const box = over.getBoundingClientRect(), [t, b] = [y(1), y(0)]; return 1 - ((event.clientY - box.top) * (size[1] / box.height) - t) / (b - t); };
    const between = (a, b) => {
      const [low, high] = [Math.min(a, b), Math.max(a, b)];
      if (hasLevels(c)) {
        const n = levelCount(c), found = new Set();
        for (let k = 0; k < n; k++) { const t = n > 1 ? k / (n - 1) : 0.5; if (t >= low - 1e-9 && t <= high + 1e-9) found.add(k); }
        if (low < -0.06) found.add(-1);
        return { levels: found };
      }
      // Bounds are values that there are, so that code says what is selected to the last digit.
      let least = Infinity, most = -Infinity;
      for (let m = 0; m < zoo.n; m++) { const t = place(c, m); if (t >= low && t <= high && t >= 0) { const v = c.values[m]; if (v < least) least = v; if (v > most) most = v; } }
      return { low: least, high: most }; // where there are none, from ∞ to −∞: a range that holds nothing
    };
    grip.addEventListener("pointerdown", (event) => { grip.setPointerCapture(event.pointerId); from = at(event); event.preventDefault(); });
    grip.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const to = at(event);
      if (Math.abs(to - from) * (size[1] - TOP) > 4) state.brush(c.name, between(from, to));
    });
    const stop = (event) => {
      if (from === null) return;
      const to = at(event);
      if (Math.abs(to - from) * (size[1] - TOP) <= 4 && event.type === "pointerup") {
        if (hasLevels(c)) { const n = levelCount(c); state.toggleLevel(c, to < -0.06 ? -1 : Math.max(0, Math.min(n - 1, Math.round(to * Math.max(1, n - 1))))); }
        else state.brush(c.name, null);
      }
      from = null;
    };
    grip.addEventListener("pointerup", stop);
    grip.addEventListener("pointercancel", stop);
  }

  /** The same by keyboard and touch: a dialog with the levels, or with the bounds. */
  function edit(c) {
    const range = state.brushes.get(c.name);
    const dialog = h("dialog", { "aria-label": `Select by ${shorten(c.name)}`, class: "edit" });
    const close = () => { dialog.close(); dialog.remove(); };
    const body = [];
    let apply;
    if (hasLevels(c)) {
      const n = levelCount(c), most = 400, chosen = new Set(range?.levels ?? []);
      const search = h("input", { type: "search", placeholder: "Find a level", "aria-label": "Find a level", oninput: () => list() });
      const box = h("div", { class: "levels" });
      const list = () => {
        const found = [];
        for (let k = missing(c) ? -1 : 0; k < n && found.length < most; k++) if (levelLabel(c, k).toLowerCase().includes(search.value.toLowerCase())) found.push(k);
        box.replaceChildren(...found.map((k) => h("label", { class: "check" }, h("input", { type: "checkbox", checked: chosen.has(k), onchange: (e) => { if (e.target.checked) chosen.add(k); else chosen.delete(k); } }), h("span", { class: "cut", title: levelLabel(c, k) }, levelLabel(c, k)))));
        if (n > most) box.append(h("p", { class: "note" }, `${found.length} of ${n.toLocaleString("en-US")} levels are listed.`));
      };
      list();
      if (n > 12) body.push(search);
      body.push(box);
      apply = () => ({ levels: chosen });
    } else {
      // An empty field is no bound.
      const bound = (value) => h("input", { type: "number", step: "any", value: Number.isFinite(value) ? String(value) : "" });
      const low = bound(range?.low ?? c.low), high = bound(range?.high ?? c.high);
      body.push(h("label", {}, "from ", low), h("label", {}, "to ", high), h("p", { class: "note" }, `${number(c.low)} to ${number(c.high)}${c.missing ? `, ${number(c.missing)} without a value` : ""}`));
      apply = () => {
        if (low.value === "" && high.value === "") return null;
        const [a, b] = [low.value === "" ? -Infinity : Number(low.value), high.value === "" ? Infinity : Number(high.value)];
        let least = Infinity, most = -Infinity;
        for (const v of c.values) if (v >= Math.min(a, b) && v <= Math.max(a, b)) { if (v < least) least = v; if (v > most) most = v; }
        return least <= most ? { low: least, high: most } : { low: Math.min(a, b), high: Math.max(a, b) };
      };
    }
    dialog.append(h("form", { onsubmit: (event) => { event.preventDefault(); state.brush(c.name, apply()); close(); } },
      h("h3", { class: "cut", title: c.name }, c.name), c.doc && h("p", { class: "note" }, c.doc), ...body,
      h("div", { class: "row" }, h("button", { type: "submit", class: "main" }, "Select"),
        h("button", { type: "button", onclick: () => { state.brush(c.name, null); close(); } }, "All"),
        h("button", { type: "button", onclick: () => { state.setColor(c.name); close(); } }, "Color by it"),
        h("button", { type: "button", onclick: close }, "Close"))));
    dialog.addEventListener("cancel", close);
    document.body.append(dialog);
    dialog.showModal();
  }

  const choose = h("details", { class: "choose" }, h("summary", {}, "Choose axes"));
  choose.append(h("div", { class: "levels" }, usable.slice(0, 400).map((c) => h("label", { class: "check" }, h("input", { type: "checkbox", checked: axes.includes(c), onchange: (e) => {
    axes = e.target.checked ? usable.filter((u) => axes.includes(u) || u === c) : axes.filter((u) => u !== c);
    prepare(); size = [0, 0]; state.soon(paint); announce(`${axes.length} axes`);
  } }), h("span", { class: "cut", title: c.name }, c.name)))));

  state.on("color theme", () => { colors = scale(state.color); state.soon(paint); });
  state.on("select", () => { showBrushes(); state.soon(paint); });
  state.on("focus hover rest", () => state.soon(paint));
  prepare();
  return h("div", {}, choose, scroller, note);
}

/** Axes of the recipe first, those that move the target most before others; then what is measured. */
function firstAxes(zoo, usable) {
  const rank = new Map(zoo.header.effects.map((e, i) => [e.factor, i]));
  const factors = usable.filter((c) => c.role === "axis" || (c.role === "factor" && rank.has(c.name)))
    .sort((a, b) => (a.role === "axis" ? 0 : 1) - (b.role === "axis" ? 0 : 1) || (rank.get(a.name) ?? 1e6) - (rank.get(b.name) ?? 1e6));
  const metrics = ["test_accuracy", "test_loss", "gap_accuracy", "attack_success", "train_accuracy"].map((n) => zoo.byName.get(n)).filter((c) => c && usable.includes(c)).slice(0, 3);
  const chosen = new Set([...factors.filter((c) => c.role === "axis").slice(0, MOST_AXES - metrics.length), ...metrics]);
  for (const c of [...factors, ...usable]) if (chosen.size < Math.min(4, usable.length)) chosen.add(c);
  return usable.filter((c) => chosen.has(c));
}
