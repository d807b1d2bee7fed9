// Histograms, training curves and the effects of factors.

import { canvas, h, select, shorten, ticks } from "./dom.js";
import { ink, scale } from "./colors.js";
import { hasLevels, levelCount, levelLabel, levelOf, number, share } from "./data.js";

const BINS = 28, MOST_ROWS = 9;
const MOST_CURVES = 160; // single lines; the mean is of all

export function histogramView(state) {
  const { zoo } = state;
  const numbers = zoo.columns.filter((c) => c.isNumber && !c.isEmpty && (c.role === "metric" || !c.steps));
  if (!numbers.length) return h("p", { class: "empty" }, "There is no metric to count.");
  let metric = zoo.target ?? numbers[0];
  const factors = zoo.columns.filter((c) => hasLevels(c) && levelCount(c) <= 60);
  const strongest = zoo.header.effects[0]?.factor;
  let factor = factors.find((c) => c.name === strongest) ?? factors.find((c) => c.role === "axis") ?? null;
  const table = h("div", { class: "hidden" });
  const { element, paint } = canvas({ class: "chart tall", role: "img", "aria-label": "Histogram" }, draw);

  function counted() {
    const edges = BINS;
    const bin = (v) => Math.min(edges - 1, Math.floor(share(v, metric.low, metric.high) * edges));
    const levels = factor ? [...Array(levelCount(factor)).keys(), -1] : [0];
    const rows = levels.map((level) => ({ level, all: new Float64Array(edges), chosen: new Float64Array(edges), n: 0, sum: 0 }));
    const place = new Map(levels.map((l, i) => [l, i]));
    for (let m = 0; m < zoo.n; m++) {
      const v = metric.values[m];
      if (!Number.isFinite(v)) continue;
      const row = rows[factor ? place.get(levelOf(factor, m)) : 0], b = bin(v);
      row.all[b]++; 
      if (state.selected[m]) { row.chosen[b]++; row.n++; row.sum += v; }
    }
    return rows.filter((r) => r.all.some((v) => v));
  }

  function draw(context, width, height) {
    const { text, soft, line, faint } = ink();
    const rows = counted(), shown = rows.slice(0, MOST_ROWS), left = factor ? Math.min(110, width * 0.3) : 8, bottom = 24, top = 6;
    const tall = (height - bottom - top) / shown.length;
    const colors = scale(factor);
    context.font = "12px system-ui, sans-serif"; context.textBaseline = "middle";
    const x = (b) => left + (b * (width - left - 58)) / BINS;
    shown.forEach((row, i) => {
      const base = top + (i + 1) * tall - 4, most = Math.max(...row.all, 1), step = (tall - 10) / most;
      context.fillStyle = faint;
      row.all.forEach((v, b) => v && context.fillRect(x(b), base - v * step, x(b + 1) - x(b) - 1, v * step));
      // A level beyond the colors is one of the others.
      context.fillStyle = factor ? colors.legend?.find((l) => l.level === row.level)?.color ?? colors.palette.at(-1) : colors.palette[0];
      row.chosen.forEach((v, b) => v && context.fillRect(x(b), base - v * step, x(b + 1) - x(b) - 1, Math.max(1, v * step)));
      context.fillStyle = text;
      if (factor) { context.textAlign = "right"; context.fillText(shorten(levelLabel(factor, row.level), Math.max(6, Math.floor(left / 8))), left - 8, base - Math.min(10, tall / 2)); }
      context.textAlign = "left"; context.fillStyle = soft;
      context.fillText(row.n ? number(Number((row.sum / row.n).toPrecision(3))) : "–", width - 50, base - Math.min(10, tall / 2));
      context.strokeStyle = line; context.beginPath(); context.moveTo(left, base + 0.5); context.lineTo(width - 58, base + 0.5); context.stroke();
    });
    context.fillStyle = soft; context.textAlign = "center";
    for (const v of ticks(metric.low, metric.high, 5)) context.fillText(number(v), left + share(v, metric.low, metric.high) * (width - left - 58), height - 10);
    context.textAlign = "left"; context.fillText("mean", width - 50, height - 10);
    note.textContent = rows.length > shown.length ? `${shown.length} of ${rows.length} levels are drawn.` : "";
    const told = `Histogram of ${metric.name}${factor ? ` by ${factor.name}` : ""}. ` + shown.map((r) => `${factor ? `${levelLabel(factor, r.level)}: ` : ""}${number(r.n)} networks${r.n ? `, mean ${number(r.sum / r.n)}` : ""}`).join("; ");
    element.setAttribute("aria-label", told.slice(0, 1200));
  }
  const note = h("p", { class: "note" });
  state.on("select theme", () => state.soon(paint));
  return h("div", {}, h("div", { class: "tools" },
    select("Metric", numbers.map((c) => [c.name, c.name]), metric.name, (v) => { metric = zoo.byName.get(v); state.soon(paint); }),
    factors.length > 0 && h("span", {}, "by"),
    factors.length > 0 && select("Factor", [["", "nothing"], ...factors.map((c) => [c.name, c.name])], factor?.name ?? "", (v) => { factor = zoo.byName.get(v) ?? null; state.soon(paint); })), element, note, table);
}

/** A metric over training: single networks faint, means of the levels of the color. */
export function curvesView(state, first, models = null) {
  const { zoo } = state;
  const names = [...zoo.curves.keys()];
  if (!names.length || zoo.owner.length <= zoo.n) return h("p", { class: "empty" }, "Each network has one snapshot, or none was measured: there are no curves.");
  let name = first.find((n) => zoo.curves.has(n)) ?? names[0];
  const time = zoo.epoch.some(Number.isFinite) ? zoo.epoch : zoo.step, timeName = time === zoo.epoch ? "epoch" : "step";
  const { element, paint } = canvas({ class: models ? "chart small" : "chart", role: "img" }, draw);

  function draw(context, width, height) {
    const { text, soft, line, accent } = ink();
    const values = zoo.curves.get(name), colors = scale(state.color);
    const chosen = models ? models() : null, members = [];
    if (chosen) members.push(...chosen); else for (let i = 0; i < zoo.n; i++) if (state.selected[zoo.order[i]]) members.push(zoo.order[i]);
    let low = Infinity, high = -Infinity, end = 0, begin = Infinity;
    for (const m of members) for (let s = zoo.first[m]; s < zoo.first[m + 1]; s++) {
      const v = values[s];
      if (Number.isFinite(v)) { if (v < low) low = v; if (v > high) high = v; }
      if (Number.isFinite(time[s])) { if (time[s] > end) end = time[s]; if (time[s] < begin) begin = time[s]; }
    }
    context.font = "12px system-ui, sans-serif"; context.textBaseline = "middle";
    if (!(low <= high)) { context.fillStyle = soft; context.textAlign = "center"; context.fillText(members.length ? "nothing was measured" : "nothing is selected", width / 2, height / 2); element.setAttribute("aria-label", `${name}: nothing to draw`); return; }
    if (low === high) { low -= 0.5; high += 0.5; }
    const left = 46, right = 10, top = 10, bottom = 24;
    const x = (t) => left + share(t, begin, end) * (width - left - right), y = (v) => top + (1 - share(v, low, high)) * (height - top - bottom);
    context.strokeStyle = line; context.fillStyle = soft; context.lineWidth = 1; context.textAlign = "right";
    for (const v of ticks(low, high, models ? 3 : 4)) { context.beginPath(); context.moveTo(left, y(v)); context.lineTo(width - right, y(v)); context.stroke(); context.fillText(number(v), left - 6, y(v)); }
    context.textAlign = "center";
    for (const t of ticks(begin, end, 5)) context.fillText(number(t), x(t), height - 9);
    const path = (m) => { let on = false; context.beginPath(); for (let s = zoo.first[m]; s < zoo.first[m + 1]; s++) { if (!Number.isFinite(values[s])) { on = false; continue; } if (on) context.lineTo(x(time[s]), y(values[s])); else context.moveTo(x(time[s]), y(values[s])); on = true; } context.stroke(); };
    if (models) { context.lineWidth = 2; for (const m of members) { context.strokeStyle = accent; path(m); } }
    else {
      context.globalAlpha = Math.max(0.1, Math.min(0.5, 12 / members.length));
      for (const m of members.slice(0, MOST_CURVES)) { context.strokeStyle = colors.palette[colors.of(m)]; path(m); }
      context.globalAlpha = 1;
      if (colors.legend?.length) for (const level of colors.legend.filter((l) => l.level !== null).slice(0, 12)) mean(members.filter((m) => levelOf(colors.column, m) === level.level), level.color);
      else mean(members, text);
      if (state.focus >= 0) { context.lineWidth = 2; context.strokeStyle = text; context.setLineDash([4, 3]); path(state.focus); context.setLineDash([]); }
    }
    function mean(those, color) {
      const sums = new Map();
      for (const m of those) for (let s = zoo.first[m]; s < zoo.first[m + 1]; s++) if (Number.isFinite(values[s])) { const e = sums.get(time[s]) ?? [0, 0]; e[0] += values[s]; e[1]++; sums.set(time[s], e); }
      // Where few are left (networks of other lengths) a mean would jump.
      const points = [...sums].filter(([, [, n]]) => n >= those.length / 2).sort((a, b) => a[0] - b[0]);
      if (points.length < 2) return;
      context.beginPath(); points.forEach(([t, [sum, n]], i) => (i ? context.lineTo(x(t), y(sum / n)) : context.moveTo(x(t), y(sum / n))));
      context.lineWidth = 5; context.strokeStyle = ink().paper; context.stroke(); context.lineWidth = 2.5; context.strokeStyle = color; context.stroke();
    }
    element.setAttribute("aria-label", `${name} by ${timeName} of ${number(members.length)} networks, from ${number(low)} to ${number(high)}`);
  }
  if (models) state.on("focus theme", () => state.soon(paint)); else state.on("rest color focus theme", () => state.soon(paint));
  return h("div", {}, models ? h("h4", {}, name) : h("div", { class: "tools" }, select("Metric", names.map((n) => [n, n]), name, (v) => { name = v; state.soon(paint); }), h("span", {}, `by ${timeName}`)), element);
}

export function effectsView(state) {
  const { zoo } = state, { effects, target } = zoo.header;
  if (!effects.length) return h("p", { class: "empty" }, target ? "No factor of this zoo varies, or the metric does not." : "This zoo holds no metric whose variance could be shared out.");
  const rows = effects.map((e) => {
    const bounds = e.low === null ? "no interval" : `${e.low.toFixed(2)} – ${e.high.toFixed(2)}`;
    const bar = h("span", { class: "bar" }), fill = h("i"), whisker = h("b");
    fill.style.width = `${100 * Math.max(0, Math.min(1, e.value))}%`;
    if (e.low !== null) { whisker.style.left = `${100 * e.low}%`; whisker.style.width = `${100 * (e.high - e.low)}%`; } else whisker.hidden = true;
    bar.append(fill, whisker);
    const also = e.with_it.length ? `, with ${e.with_it.join(", ")}` : "";
    return h("tr", {}, h("th", { scope: "row" }, h("button", { type: "button", class: "link cut", title: `${e.factor}${also}`, onclick: () => state.setColor(e.factor) }, e.factor), also && h("small", { class: "cut", title: also.slice(2) }, also.slice(2))),
      h("td", { class: "wide" }, bar), h("td", { class: "num" }, e.value.toFixed(2)), h("td", { class: "num soft", title: e.note }, bounds));
  });
  const first = effects[0];
  return h("div", {}, h("table", { class: "effects" }, h("thead", {}, h("tr", {}, h("th", {}, "factor"), h("th", {}, h("span", { class: "hidden" }, "bar")), h("th", { class: "num" }, "η²"), h("th", { class: "num" }, `${100 * first.level} %`))), h("tbody", {}, rows)),
    h("p", { class: "note" }, `Share of the variance of ${target} between the means of a factor's levels. Intervals resample ${number(first.n_groups)} init groups${first.note ? ` (${first.note})` : ""}. Choose a factor to color by it.`));
}
