// A selection → Python that gives it, and its rows as csv.

import { levelOf } from "./data.js";

/** Text as a literal of Python: what is not plain ASCII is escaped, so that nothing hides in what is copied. */
export function literal(text) {
  let out = '"';
  for (const c of text) {
    const code = c.codePointAt(0);
    if (c === '"' || c === "\\") out += `\\${c}`;
    else if (code >= 32 && code < 127) out += c;
    else if (code > 0xffff) out += `\\U${code.toString(16).padStart(8, "0")}`;
    else out += `\\u${code.toString(16).padStart(4, "0")}`;
  }
  return `${out}"`;
}

export function value(column, level) {
  if (level < 0) return "None";
  if (column.isNumber) return numeral(column, column.steps[level]);
  const it = column.levels[level];
  if (typeof it === "string") return literal(it);
  if (typeof it === "boolean") return it ? "True" : "False";
  if (Array.isArray(it)) return `[${it.map((v) => (typeof v === "string" ? literal(v) : v === null ? "None" : typeof v === "boolean" ? (v ? "True" : "False") : String(v))).join(", ")}]`;
  return String(it);
}

/** Doubles are written so that Python reads the same double. */
function numeral(column, v) {
  if (v === Infinity) return 'float("inf")';
  if (v === -Infinity) return 'float("-inf")';
  if (column.kind === "integer") return String(v);
  return Number.isInteger(v) && Math.abs(v) < 1e15 ? `${v}.0` : String(v);
}

/** What `select` and `filter` are given: [column, kind, …] of each brush, in the order of columns. */
function conditions(state) {
  return state.zoo.columns.filter((c) => state.brushes.has(c.name)).map((column) => [column, state.brushes.get(column.name)]);
}

const isName = (name) => /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) && !KEYWORDS.has(name);
const KEYWORDS = new Set(("False None True and as assert async await break class continue def del elif else except finally for from global if import in is lambda " +
  "nonlocal not or pass raise return try while with yield").split(" "));

function ids(state) {
  const found = [];
  if (state.lasso) for (let m = 0; m < state.zoo.n; m++) if (state.lasso[m]) found.push(literal(state.zoo.ids[m]));
  return found;
}

const revision = (zoo) => (zoo.header.revision ? `, revision=${literal(zoo.header.revision)}` : "");

const wrapped = (items, indent) => items.length > 3 ? `[\n${items.map((i) => `${indent}    ${i},\n`).join("")}${indent}]` : `[${items.join(", ")}]`;

/** `zoo.select(…)`: a row for each network, its last snapshot. */
export function selectCode(state) {
  const { zoo } = state, lines = [], arguments_ = [], expressions = [];
  for (const [column, range] of conditions(state)) {
    if (!range.levels) {
      expressions.push(`(pc.field(${literal(column.name)}) >= ${numeral(column, range.low)})`, `(pc.field(${literal(column.name)}) <= ${numeral(column, range.high)})`);
    } else if (column.kind === "list") {
      continue; // compared as a whole, one after another: below
    } else {
      const found = [...range.levels].sort((a, b) => a - b).map((k) => value(column, k));
      const given = found.length === 1 ? found[0] : wrapped(found, "    ");
      arguments_.push(isName(column.name) ? `${column.name}=${given}` : `**{${literal(column.name)}: ${given}}`);
    }
  }
  const lists = conditions(state).filter(([column, range]) => range.levels && column.kind === "list");
  if (state.lasso) arguments_.push(`model_id=${wrapped(ids(state), "    ")}`);
  if (expressions.length) lines.push("import pyarrow.compute as pc");
  if (lists.length) lines.push("import numpy as np");
  lines.push("from zoo_datasets import open_zoo", "", `zoo = open_zoo(${literal(zoo.header.name)}${revision(zoo)})`);
  const given = [...(expressions.length ? [expressions.join(" & ")] : []), ...arguments_];
  if (!given.length) lines.push("chosen = zoo.final()  # the last snapshot of every network");
  else if (given.join(", ").length < 70) lines.push(`chosen = zoo.final().select(${given.join(", ")})`);
  else lines.push("chosen = zoo.final().select(", ...given.map((g) => `    ${g},`), ")");
  for (const [column, range] of lists) {
    const found = [...range.levels].sort((a, b) => a - b).map((k) => value(column, k));
    lines.push(`chosen = chosen.take(np.array([v in ${wrapped(found, "")} for v in chosen.column(${literal(column.name)}).to_pylist()], bool))`);
  }
  lines.push(`print(len(chosen), chosen.weights.shape)`);
  return `${lines.join("\n")}\n`;
}

/** `load_dataset(…).filter(…)`: the same networks, with nothing of ours installed. */
export function filterCode(state) {
  const { zoo } = state, tests = [];
  for (const [column, range] of conditions(state)) {
    const row = `row[${literal(column.name)}]`;
    if (range.levels) {
      const found = [...range.levels].sort((a, b) => a - b).map((k) => value(column, k));
      tests.push(found.length === 1 && found[0] !== "None" ? `${row} == ${found[0]}` : `${row} in ${wrapped(found, "    ")}`);
    } else tests.push(`${row} is not None and ${numeral(column, range.low)} <= ${row} <= ${numeral(column, range.high)}`);
  }
  const lines = ["from datasets import load_dataset", ""];
  lines.push(`models = load_dataset(${literal(zoo.header.name)}${revision(zoo)}, split=${literal(Object.keys(zoo.header.splits).join("+"))})`);
  if (state.lasso) { lines.push(`wanted = {`, ...ids(state).map((i) => `    ${i},`), "}"); tests.push('row["model_id"] in wanted'); }
  if (!tests.length) lines.push("chosen = models");
  else if (tests.join(" and ").length < 70) lines.push(`chosen = models.filter(lambda row: ${tests.join(" and ")})`);
  else lines.push("chosen = models.filter(", "    lambda row: " + tests.join("\n    and "), ")");
  lines.push("print(len(chosen))");
  return `${lines.join("\n")}\n`;
}

/** The selected networks, a row each. A text that a spreadsheet would compute gets an apostrophe. */
export function csv(state) {
  const { zoo } = state;
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const plain = (text) => quoted(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text);
  const rows = [["model_id", ...zoo.columns.map((c) => c.name)].map(plain).join(",")];
  for (let m = 0; m < zoo.n; m++) {
    if (!state.selected[m]) continue;
    rows.push([plain(zoo.ids[m]), ...zoo.columns.map((c) => {
      const v = c.values[m];
      if (c.isNumber) return Number.isNaN(v) ? "" : String(v);
      return levelOf(c, m) < 0 ? "" : plain(c.labels[v]);
    })].join(","));
  }
  return `${rows.join("\r\n")}\r\n`;
}
