// The packed block of the page → header, columns and arrays.

const TYPES = { float32: Float32Array, float64: Float64Array, int32: Int32Array, int8: Int8Array };

/** Everything the page knows: `payload.py` says what it holds. */
export async function unpack(element) {
  const text = atob(element.textContent.trim());
  element.remove();
  const packed = Uint8Array.from({ length: text.length }, (_, i) => text.charCodeAt(i));
  const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const buffer = await new Response(plain).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const array = (name) => {
    const [type, at, count] = header.arrays[name];
    return new TYPES[type](buffer, 4 + length + at, count);
  };
  return new Zoo(header, array);
}

export class Zoo {
  constructor(header, array) {
    this.header = header;
    this.n = header.ids.length;
    this.ids = header.ids;
    this.columns = header.columns.map((c, i) => column(c, array(`column:${i}`)));
    this.byName = new Map(this.columns.map((c) => [c.name, c]));
    this.curves = new Map(header.curves.map((name) => [name, array(`curve:${name}`)]));
    for (const name of ["owner", "xy", "step", "epoch", "neighbors", "distances", "layout", "group", "filters"]) this[name] = array(name);
    this.filterScales = array("filter_scales");
    this.filterStart = array("filter_start");
    this.twins = header.twins.map((axis, i) => ({ axis, group: array(`twins:${i}`) }));
    // Snapshots lie model after model, by step.
    this.first = new Int32Array(this.n + 1).fill(this.owner.length);
    for (let s = this.owner.length - 1; s >= 0; s--) this.first[this.owner[s]] = s;
    for (let m = this.n - 1; m >= 0; m--) this.first[m] = Math.min(this.first[m], this.first[m + 1]);
    this.maps = header.maps.map((map, i) => ({ ...map, index: i })).filter((map) => !map.note);
    this.target = header.target && this.byName.get(header.target);
    this.order = shuffled(this.n);
  }

  /** The last snapshot of a model, where it lies on its map. */
  last(model) { return this.first[model + 1] - 1; }
  isOnMap(model) { const s = this.last(model); return s >= this.first[model] && Number.isFinite(this.xy[2 * s]) && Number.isFinite(this.xy[2 * s + 1]); }
}

function column(told, values) {
  const isNumber = told.kind === "number" || told.kind === "integer";
  const made = { ...told, values, isNumber };
  if (!isNumber) {
    made.labels = told.levels.map(label);
    made.known = told.levels.length;
    return made;
  }
  let low = Infinity, high = -Infinity, missing = 0;
  const seen = new Set();
  for (const v of values) {
    if (seen.size <= 12 && !Number.isNaN(v)) seen.add(v);
    if (!Number.isFinite(v)) { missing++; continue; }
    if (v < low) low = v;
    if (v > high) high = v;
  }
  Object.assign(made, { low, high, missing, isEmpty: low > high });
  // A factor of few values is a row of levels, evenly spaced, ∞ among them; anything else a scale. Where the zoo holds NaN,
  // "none" would be NaN and null, which code tells apart: a scale, whose ranges hold neither.
  if (seen.size <= 12 && !told.nan && made.role !== "metric" && !made.isEmpty) {
    made.steps = [...seen].sort((a, b) => a - b);
    made.place = new Map(made.steps.map((v, i) => [v, i]));
    made.known = made.steps.length;
  }
  made.isLog = !made.steps && low > 0 && high / low > 50;
  return made;
}

/** Where a number lies between two, from 0 to 1; their difference may be more than a double holds. */
export function share(v, low, high) {
  const span = high - low;
  if (!(span > 0)) return 0;
  return Number.isFinite(span) ? (v - low) / span : (v / 2 - low / 2) / (high / 2 - low / 2);
}

export const label = (value) => (typeof value === "string" ? value : JSON.stringify(value));

/** The number of a model's level, −1 for null; of columns that have levels. */
export function levelOf(column, model) {
  const value = column.values[model];
  if (!column.isNumber) return value;
  return column.place.has(value) ? column.place.get(value) : -1;
}

export const hasLevels = (column) => !column.isNumber || Boolean(column.steps);
export const levelCount = (column) => (column.isNumber ? column.steps.length : column.labels.length);
export const levelLabel = (column, level) =>
  level < 0 ? "none" : column.isNumber ? number(column.steps[level]) : column.labels[level];

/** A value as people read it. */
export function text(column, model) {
  const value = column.values[model];
  if (column.isNumber) return number(value);
  return value < 0 ? "none" : column.labels[value];
}

export function number(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "none";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return value.toLocaleString("en-US").replace("-", "−");
  const size = Math.abs(value);
  const shown = size >= 1e5 || size < 1e-3 ? value.toExponential(2).replace(/\.?0+e/, "e") : String(Number(value.toPrecision(4)));
  return shown.replace(/-/g, "−");
}

/** Models in an order that looks random and is always the same: of too many, the first stand for all. */
function shuffled(n) {
  const order = Int32Array.from({ length: n }, (_, i) => i);
  let seed = 2463534242;
  for (let i = n - 1; i > 0; i--) {
    seed ^= seed << 13; seed ^= seed >>> 17; seed ^= seed << 5;
    const j = (seed >>> 0) % (i + 1);
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
