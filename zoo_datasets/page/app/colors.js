// A column → the color of each model, and its legend. Safe for color-blind eyes; 3 : 1 against the page.

import { hasLevels, levelCount, levelOf, levelLabel, share } from "./data.js";

const LIGHT = ["#1f6fb4", "#d9730d", "#0a8a5f", "#8e4ec6", "#3a8fd0", "#b3261e", "#857400"];
const DARK = ["#6aa9e9", "#f0a04b", "#4cc79a", "#c79bf0", "#9ad4ff", "#ef7d75", "#d2c04f"];
// Cividis (Nuñez, Anderton & Renslow 2018), as a few colors between which lines are drawn.
const CIVIDIS = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
export const STEPS = 48;

export const isDark = () => document.documentElement.dataset.theme === "dark";
const cssValue = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Asked for in every picture; a style is worked out anew, and levels are counted anew, only where the theme changes.
let inks = null, scales = new Map(), dressed = null;
function fresh() { const theme = document.documentElement.dataset.theme; if (theme !== dressed) { dressed = theme; inks = null; scales = new Map(); } }

/** Colors that canvases need, of the theme that is on. */
export function ink() {
  fresh();
  inks ??= { text: cssValue("--ink"), soft: cssValue("--soft"), line: cssValue("--line"), faint: cssValue("--faint"), paper: cssValue("--paper"), accent: cssValue("--accent") };
  return inks;
}

function mixed(stops, t) {
  const x = Math.max(0, Math.min(1, t)) * (stops.length - 1), i = Math.min(stops.length - 2, Math.floor(x));
  const part = (c, k) => parseInt(c.slice(1 + 2 * k, 3 + 2 * k), 16);
  const at = (k) => Math.round(part(stops[i], k) + (x - i) * (part(stops[i + 1], k) - part(stops[i], k)));
  return `rgb(${at(0)},${at(1)},${at(2)})`;
}
const sequential = (t) => mixed(CIVIDIS, isDark() ? 0.3 + 0.7 * t : 0.84 * t);

/** {palette, of: model → its place there, legend}; without a column all are one color. */
export function scale(column) {
  fresh();
  if (!scales.has(column)) scales.set(column, makeScale(column));
  return scales.get(column);
}

function makeScale(column) {
  const soft = ink().soft;
  const colors = isDark() ? DARK : LIGHT;
  if (!column || column.isEmpty) return { palette: [colors[0]], of: () => 0, legend: [] };
  if (hasLevels(column)) {
    const n = levelCount(column);
    const counts = new Map();
    for (let m = 0; m < column.values.length; m++) { const k = levelOf(column, m); counts.set(k, (counts.get(k) ?? 0) + 1); }
    const ordered = column.isNumber && n > 2;
    let named = [...Array(n).keys()];
    const isMany = n > (ordered ? 12 : colors.length);
    if (isMany) named = named.sort((a, b) => (counts.get(b) ?? 0) - (counts.get(a) ?? 0) || a - b).slice(0, colors.length).sort((a, b) => a - b);
    const palette = named.map((_, i) => (ordered ? sequential(named.length > 1 ? i / (named.length - 1) : 0.5) : colors[i]));
    const place = new Map(named.map((level, i) => [level, i]));
    palette.push(soft);
    const rest = palette.length - 1;
    const legend = named.map((level, i) => ({ color: palette[i], label: levelLabel(column, level), count: counts.get(level) ?? 0, level }));
    let others = 0;
    for (const [level, count] of counts) if (level >= 0 && !place.has(level)) others += count;
    if (others) legend.push({ color: soft, label: `${(n - named.length).toLocaleString("en-US")} others`, count: others, level: null });
    if (counts.get(-1)) legend.push({ color: soft, label: "none", count: counts.get(-1), level: -1 });
    return { palette, of: (m) => place.get(levelOf(column, m)) ?? rest, legend, column };
  }
  const palette = Array.from({ length: STEPS }, (_, i) => sequential(i / (STEPS - 1)));
  palette.push(soft);
  const to = column.isLog ? Math.log : (v) => v;
  const low = to(column.low), high = to(column.high);
  const of = (m) => {
    const v = column.values[m];
    return Number.isFinite(v) ? Math.min(STEPS - 1, Math.floor(share(to(v), low, high) * STEPS)) : STEPS;
  };
  return { palette, of, legend: null, column };
}
