// The map of weights: a point is a network, its last weights on two principal components.

import { announce, canvas, h, select } from "./dom.js";
import { ink, scale } from "./colors.js";
import { number, text } from "./data.js";

const MOST_ROUND = 4000; // points that are drawn as disks; more are squares
const MOST_TRAILS = 150;
const MOST_MOVING = 2500; // points of the selection while something is dragged
const REACH = 18; // pixels in which a pointer finds a point

export function mapView(state, chosenColumns) {
  const { zoo } = state;
  if (!zoo.maps.length) return h("p", { class: "empty" }, "There is no map of these weights. What is missing is said at the end of the page; everything else is here.");
  let map = zoo.maps[0], points = [], bounds, view, mode = "move", trails = true, lasso = null, colors = scale(state.color);
  let grid = null; // models of each cell, for pointers
  let spots = null; // x, y in pixels of each point, until the view moves
  let under = null; // all points in gray, until the view moves

  const tip = h("div", { class: "tip", hidden: true });
  const legend = h("div", { class: "legend" });
  const note = h("p", { class: "note" });
  const { element, paint } = canvas({
    tabindex: 0, role: "application", class: "plane", "aria-roledescription": "map",
    "aria-label": "Map of weights. Arrow keys go from network to network, Enter opens one, plus and minus zoom, 0 shows all, S selects what is in view, Escape clears the selection.",
  }, draw);

  function takeMap(index) {
    map = zoo.maps.find((m) => m.index === index);
    points = [];
    for (let m = 0; m < zoo.n; m++) if (zoo.layout[m] === index && zoo.isOnMap(m)) points.push(m);
    const box = [Infinity, Infinity, -Infinity, -Infinity];
    for (const m of points) { const [x, y] = at(m); box[0] = Math.min(box[0], x); box[1] = Math.min(box[1], y); box[2] = Math.max(box[2], x); box[3] = Math.max(box[3], y); }
    bounds = box;
    reset();
    note.textContent = `Principal components of the last weights, ${map.n_params.toLocaleString("en-US")} values each: they hold ${percent(map.explained[0])} and ${percent(map.explained[1])} of the variance.`;
  }
  const percent = (v) => `${(100 * v).toFixed(v < 0.1 ? 1 : 0)} %`;
  const at = (m) => { const s = zoo.last(m); return [zoo.xy[2 * s], zoo.xy[2 * s + 1]]; };
  const reset = () => { view = { x: 0, y: 0, k: 1 }; unplace(); state.soon(paint); };

  let size = [1, 1];
  function project(x, y) {
    const [w, t] = size, pad = 22, dx = bounds[2] - bounds[0] || 1, dy = bounds[3] - bounds[1] || 1;
    const k = Math.min((w - 2 * pad) / dx, (t - 2 * pad) / dy);
    const px = w / 2 + (x - (bounds[0] + bounds[2]) / 2) * k, py = t / 2 - (y - (bounds[1] + bounds[3]) / 2) * k;
    return [(px - w / 2) * view.k + w / 2 + view.x, (py - t / 2) * view.k + t / 2 + view.y];
  }
  const placed = (m) => project(...at(m));
  const unplace = () => { grid = null; spots = null; under = null; };

  function draw(context, width, height) {
    if (size[0] !== width || size[1] !== height) { size = [width, height]; unplace(); }
    if (!spots) {
      spots = new Float32Array(2 * zoo.n).fill(NaN);
      for (const m of points) { const [x, y] = placed(m); spots[2 * m] = x; spots[2 * m + 1] = y; }
    }
    const { line, soft, text: dark, paper } = ink();
    const isFew = points.length <= MOST_ROUND;
    const radius = isFew ? (points.length < 400 ? 4 : 3) : 1.6;
    const dots = (target, members) => {
      for (const m of members) {
        const x = spots[2 * m], y = spots[2 * m + 1];
        if (!(x > -9 && y > -9 && x < width + 9 && y < height + 9)) continue;
        if (isFew && !(state.isMoving && points.length > 600)) { target.beginPath(); target.arc(x, y, radius, 0, 7); target.fill(); } else target.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
      }
    };
    if (state.isActive) {
      const ratio = window.devicePixelRatio || 1, key = `${line} ${ratio}`;
      if (under?.key !== key) {
        const layer = document.createElement("canvas"); layer.width = element.width; layer.height = element.height;
        const gray = layer.getContext("2d"); gray.setTransform(ratio, 0, 0, ratio, 0, 0); gray.fillStyle = line; dots(gray, points);
        under = { key, layer };
      }
      context.globalAlpha = 0.55; context.drawImage(under.layer, 0, 0, width, height); context.globalAlpha = 1;
    }
    if (trails && !state.isMoving) drawTrails(context);
    const byColor = colors.palette.map(() => []);
    let drawn = 0;
    const most = state.isMoving ? MOST_MOVING : Infinity;
    for (let i = 0; i < zoo.n && drawn < most; i++) { const m = zoo.order[i]; if (state.selected[m] && zoo.layout[m] === map.index && !Number.isNaN(spots[2 * m])) { byColor[colors.of(m)].push(m); drawn++; } }
    context.globalAlpha = isFew ? 0.88 : 0.75;
    byColor.forEach((members, i) => { context.fillStyle = colors.palette[i]; dots(context, members); });
    context.globalAlpha = 1;
    for (const m of [state.hover, state.focus]) {
      if (m < 0 || zoo.layout[m] !== map.index || !zoo.isOnMap(m)) continue;
      const [x, y] = placed(m);
      context.lineWidth = 4; context.strokeStyle = paper; context.beginPath(); context.arc(x, y, radius + 4.5, 0, 7); context.stroke();
      context.lineWidth = 2; context.strokeStyle = dark; context.stroke();
    }
    if (lasso) {
      context.beginPath(); lasso.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y))); context.closePath();
      context.fillStyle = soft; context.globalAlpha = 0.18; context.fill(); context.globalAlpha = 1;
      context.strokeStyle = dark; context.lineWidth = 1.5; context.setLineDash([5, 4]); context.stroke(); context.setLineDash([]);
    }
  }

  /** Ways of the selected networks from their first snapshot to their last; thinner where they begin. */
  function drawTrails(context) {
    let drawn = 0;
    const trail = (m, alpha, width) => {
      context.strokeStyle = colors.palette[colors.of(m)];
      for (let s = zoo.first[m] + 1; s < zoo.first[m + 1]; s++) {
        const part = (s - zoo.first[m]) / (zoo.first[m + 1] - zoo.first[m] - 1 || 1);
        context.globalAlpha = alpha * (0.35 + 0.65 * part); context.lineWidth = width * (0.5 + 0.5 * part);
        context.beginPath(); context.moveTo(...project(zoo.xy[2 * s - 2], zoo.xy[2 * s - 1])); context.lineTo(...project(zoo.xy[2 * s], zoo.xy[2 * s + 1])); context.stroke();
      }
    };
    context.lineCap = "round";
    if (state.isActive) for (let i = 0; i < zoo.n && drawn < MOST_TRAILS; i++) { const m = zoo.order[i]; if (state.selected[m] && zoo.layout[m] === map.index) { trail(m, 0.5, 1.3); drawn++; } }
    for (const m of [state.hover, state.focus]) if (m >= 0 && zoo.layout[m] === map.index) trail(m, 0.95, 2.4);
    context.globalAlpha = 1;
  }

  function near(x, y) {
    const cell = 24;
    if (!grid) {
      grid = new Map();
      for (const m of points) { const [px, py] = placed(m), key = `${Math.floor(px / cell)},${Math.floor(py / cell)}`; if (!grid.has(key)) grid.set(key, []); grid.get(key).push(m); }
    }
    let best = -1, least = REACH * REACH;
    for (let i = -1; i <= 1; i++) for (let j = -1; j <= 1; j++)
      for (const m of grid.get(`${Math.floor(x / cell) + i},${Math.floor(y / cell) + j}`) ?? []) {
        const [px, py] = placed(m), d = (px - x) ** 2 + (py - y) ** 2 + (state.selected[m] ? 0 : 40);
        if (d < least) { least = d; best = m; }
      }
    return best;
  }

  // ── pointers: one drags, lassos or points; two pinch ──
  const pointers = new Map();
  let moved = 0, before = null;
  const local = (event) => { const box = element.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
  const zoomAt = (x, y, factor) => {
    const k = Math.max(0.5, Math.min(400, view.k * factor)), f = k / view.k, [w, t] = size;
    view.x = (view.x + w / 2 - x) * f + x - w / 2; view.y = (view.y + t / 2 - y) * f + y - t / 2; view.k = k;
    unplace(); state.move(); state.soon(paint);
  };
  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId); pointers.set(event.pointerId, local(event)); moved = 0; before = null;
    if (pointers.size === 1 && (mode === "lasso" || event.shiftKey)) lasso = [local(event)]; else lasso = null;
  });
  element.addEventListener("pointermove", (event) => {
    const [x, y] = local(event);
    if (!pointers.has(event.pointerId)) { if (event.pointerType !== "touch") point(near(x, y), x, y); return; }
    const [px, py] = pointers.get(event.pointerId);
    moved += Math.abs(x - px) + Math.abs(y - py);
    pointers.set(event.pointerId, [x, y]);
    if (pointers.size === 2) {
      const [a, b] = [...pointers.values()], d = Math.hypot(a[0] - b[0], a[1] - b[1]), c = [(a[0] + b[0]) / 2, (a[1] + b[1]) / 2];
      if (before) { view.x += c[0] - before.c[0]; view.y += c[1] - before.c[1]; zoomAt(c[0], c[1], d / before.d); }
      before = { d, c };
    } else if (lasso) { if (moved > 4) { lasso.push([x, y]); state.soon(paint); } }
    else if (moved > 4) { view.x += x - px; view.y += y - py; unplace(); tip.hidden = true; state.move(); state.soon(paint); }
  });
  const end = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    const [x, y] = local(event);
    if (lasso && lasso.length > 2 && event.type === "pointerup") {
      const mask = new Uint8Array(zoo.n);
      for (const m of points) if (inside(placed(m), lasso)) mask[m] = 1;
      lasso = null; state.setLasso(mask.includes(1) ? mask : null);
      if (!mask.includes(1)) announce("No network lies in the lasso");
    } else if (moved <= 4 && event.type === "pointerup") { const m = near(x, y); if (m >= 0) state.setFocus(m); }
    lasso = null; state.soon(paint);
  };
  element.addEventListener("pointerup", end);
  element.addEventListener("pointercancel", end);
  element.addEventListener("pointerleave", () => point(-1));
  element.addEventListener("wheel", (event) => { event.preventDefault(); zoomAt(...local(event), Math.exp(-event.deltaY / 350)); }, { passive: false });

  function point(model, x, y) {
    state.setHover(model);
    tip.hidden = model < 0;
    element.style.cursor = mode === "lasso" ? "crosshair" : model < 0 ? "grab" : "pointer";
    if (model < 0) return;
    tip.replaceChildren(h("b", {}, zoo.ids[model]), h("dl", {}, chosenColumns().map((c) => [h("dt", {}, c.name), h("dd", {}, text(c, model))])));
    const [w, t] = size, box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 16, w - box.width - 4))}px`;
    tip.style.top = `${y + 18 + box.height > t ? Math.max(4, y - box.height - 12) : y + 18}px`;
  }

  // ── keys ──
  const KEYS = {
    ArrowLeft: () => step(-1, 0), ArrowRight: () => step(1, 0), ArrowUp: () => step(0, -1), ArrowDown: () => step(0, 1),
    "+": () => zoomAt(size[0] / 2, size[1] / 2, 1.4), "=": () => zoomAt(size[0] / 2, size[1] / 2, 1.4), "-": () => zoomAt(size[0] / 2, size[1] / 2, 1 / 1.4),
    0: reset, s: seen, S: seen, Escape: () => state.clear(),
    Enter: () => { document.getElementById("card")?.focus(); },
  };
  element.addEventListener("keydown", (event) => { if (KEYS[event.key] && !event.ctrlKey && !event.metaKey) { event.preventDefault(); KEYS[event.key](); } });
  /** From the network looked at to the nearest in a direction. */
  function step(dx, dy) {
    if (state.focus < 0 || zoo.layout[state.focus] !== map.index) { state.setFocus(points[0] ?? -1); return; }
    const [x, y] = placed(state.focus);
    let best = -1, least = Infinity;
    for (const m of points) {
      if (!state.selected[m] || m === state.focus) continue;
      const [px, py] = placed(m), along = (px - x) * dx + (py - y) * dy, across = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      if (along > 0.01 && along + 2 * across < least) { least = along + 2 * across; best = m; }
    }
    if (best >= 0) state.setFocus(best);
  }
  function seen() {
    const mask = new Uint8Array(zoo.n);
    for (const m of points) { const [x, y] = placed(m); if (x >= 0 && y >= 0 && x <= size[0] && y <= size[1]) mask[m] = 1; }
    state.setLasso(mask);
  }

  // ── around it ──
  const tool = (key, name, help) => h("button", { type: "button", "data-mode": key, "aria-pressed": String(mode === key), title: help, onclick: () => {
    mode = key;
    for (const b of tools.querySelectorAll("[data-mode]")) b.setAttribute("aria-pressed", String(b.dataset.mode === key));
    element.style.cursor = key === "lasso" ? "crosshair" : "grab";
  } }, name);
  const tools = h("div", { class: "tools", role: "toolbar", "aria-label": "Map" },
    h("span", { class: "segments" }, tool("move", "Move", "Drag to move, wheel or pinch to zoom"), tool("lasso", "Lasso", "Draw around networks to select them; shift-drag does so too")),
    h("span", { class: "segments" },
      h("button", { type: "button", "aria-label": "Zoom in", onclick: () => KEYS["+"]() }, "+"),
      h("button", { type: "button", "aria-label": "Zoom out", onclick: () => KEYS["-"]() }, "−"),
      h("button", { type: "button", onclick: reset }, "Fit")),
    zoo.owner.length > zoo.n && h("label", { class: "check" }, h("input", { type: "checkbox", checked: true, onchange: (e) => { trails = e.target.checked; state.soon(paint); } }), "Trajectories"),
    zoo.maps.length > 1 && select("Layout", zoo.maps.map((m) => [String(m.index), `${m.n_models.toLocaleString("en-US")} networks of ${m.n_params.toLocaleString("en-US")} weights`]), String(map.index), (v) => takeMap(Number(v))));

  function drawLegend() {
    colors = scale(state.color);
    legend.replaceChildren();
    if (!colors.column) return;
    if (colors.legend) {
      for (const { color, label, count, level } of colors.legend) {
        const swatch = h("i"); swatch.style.background = color;
        const what = [swatch, h("span", { class: "cut", title: label }, label), h("small", {}, number(count))];
        legend.append(level === null ? h("span", { class: "key" }, what) : h("button", { type: "button", class: "key", "data-level": String(level), "aria-pressed": String(Boolean(state.brushes.get(colors.column.name)?.levels?.has(level))), onclick: () => state.toggleLevel(colors.column, level) }, what));
      }
    } else {
      const { low, high, isLog } = colors.column, bar = h("i", { class: "ramp" });
      bar.style.background = `linear-gradient(to right, ${colors.palette.slice(0, -1).filter((_, i) => i % 6 === 0).join(",")}, ${colors.palette.at(-2)})`;
      legend.append(h("span", { class: "key" }, h("span", {}, number(low)), bar, h("span", {}, number(high)), isLog && h("small", {}, "log")));
    }
  }

  state.on("color theme", () => { drawLegend(); state.soon(paint); });
  state.on("select", () => {
    const levels = colors.column && state.brushes.get(colors.column.name)?.levels;
    for (const key of legend.querySelectorAll("[data-level]")) key.setAttribute("aria-pressed", String(Boolean(levels?.has(Number(key.dataset.level)))));
    state.soon(paint);
  });
  state.on("focus", () => {
    if (state.focus >= 0 && zoo.layout[state.focus] !== map.index && zoo.maps.some((m) => m.index === zoo.layout[state.focus])) {
      takeMap(zoo.layout[state.focus]);
      const box = tools.querySelector("select"); if (box) box.value = String(map.index);
    }
    state.soon(paint);
  });
  state.on("hover rest", () => state.soon(paint));
  takeMap(map.index);
  drawLegend();
  return h("div", { class: "map" }, tools, h("div", { class: "stage" }, element, tip), legend, note);
}

function inside([x, y], ring) {
  let within = false;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i++) {
    const [ax, ay] = ring[i], [bx, by] = ring[j];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) within = !within;
  }
  return within;
}
