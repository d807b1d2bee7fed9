// The page of a zoo: unpack what lies in it, put views on it that share one selection.

import { cardView, tableView } from "./card.js";
import { curvesView, effectsView, histogramView } from "./charts.js";
import { csv, filterCode, selectCode } from "./code.js";
import { number, unpack } from "./data.js";
import { announce, copy, fill, h, select, shorten } from "./dom.js";
import { mapView } from "./map.js";
import { parallelView } from "./parallel.js";
import { State } from "./state.js";

const root = document.documentElement;
const night = matchMedia("(prefers-color-scheme: dark)");
let theme = "auto";
const dress = () => { root.dataset.theme = theme === "auto" ? (night.matches ? "dark" : "light") : theme; };
dress();

const panel = (title, content, attributes = {}, help = null) => h("section", { class: `panel ${attributes.class ?? ""}`, "aria-label": title }, h("h2", {}, title), help && h("p", { class: "note" }, help), content);

function start(zoo) {
  const { header } = zoo, state = new State(zoo);
  const strongest = header.effects[0]?.factor;
  state.color = zoo.byName.get(strongest) ?? zoo.columns.find((c) => c.role === "axis") ?? zoo.target ?? zoo.columns[0] ?? null;
  // What a person wants to see of a network at a glance.
  const glance = () => [...new Set([...zoo.columns.filter((c) => c.role === "axis").slice(0, 6), state.color, ...["test_accuracy", "test_loss"].map((n) => zoo.byName.get(n))])].filter(Boolean).slice(0, 9);

  const counts = [["networks", header.counts.models], ["snapshots", header.counts.snapshots], ["init groups", header.counts.init_groups], ["diverged", header.counts.diverged || null]].filter(([, v]) => v !== null && v !== undefined);
  const widths = [...new Set(header.maps.map((m) => m.n_params))].sort((a, b) => a - b);
  if (widths.length) counts.splice(2, 0, ["weights each", widths.length > 1 ? `${number(widths[0])}–${number(widths.at(-1))}` : widths[0]]);
  const themes = select("Theme", [["auto", "Auto"], ["light", "Light"], ["dark", "Dark"]], theme, (v) => { theme = v; dress(); state.tell("theme"); });
  night.addEventListener("change", () => { dress(); state.tell("theme"); });
  const top = h("header", { class: "top" }, h("div", {}, h("p", { class: "over-title" }, "a zoo of networks"), h("h1", { title: header.name }, shorten(header.name, 120)),
    h("p", { class: "counts" }, counts.map(([name, value]) => h("span", {}, h("b", {}, typeof value === "number" ? number(value) : value), ` ${name}`)))), h("label", { class: "soft" }, themes));

  const said = h("b"), clear = h("button", { type: "button", onclick: () => state.clear() }, "Clear");
  const save = h("button", { type: "button", onclick: () => download(`${header.name.replaceAll(/[^\w.-]+/g, "-").slice(0, 80)}.csv`, csv(state)) }, "Download csv");
  const color = h("label", { class: "row" }, "Color by ", select("Color by", [["", "nothing"], ...zoo.columns.map((c) => [c.name, c.name])], state.color?.name ?? "", (v) => state.setColor(v), { id: "color" }));
  const bar = h("div", { class: "bar-top", role: "region", "aria-label": "Selection" }, color, h("span", { class: "said" }, said), h("span", { class: "chips" }), clear, save);
  const chips = bar.querySelector(".chips");

  const first = h("pre", { tabindex: 0, "aria-label": "Code with zoo_datasets" }), second = h("pre", { tabindex: 0, "aria-label": "Code with datasets" });
  const block = (title, pre, id) => h("figure", { class: "code" }, h("figcaption", {}, title, h("button", { type: "button", id, onclick: (e) => { code(); copy(pre.textContent, e.target); } }, "Copy")), pre);
  function code() { first.textContent = selectCode(state); second.textContent = filterCode(state); }

  function tell() {
    const words = state.isActive ? `${number(state.count)} of ${number(zoo.n)} networks` : `all ${number(zoo.n)} networks`;
    said.textContent = words;
    clear.disabled = !state.isActive;
    save.disabled = !state.count;
    chips.replaceChildren(...[...state.brushes.keys()].map((name) => h("button", { type: "button", class: "chip", title: `Clear ${name}`, onclick: () => state.brush(name, null) }, h("span", { class: "cut" }, name), " ×")),
      ...(state.lasso ? [h("button", { type: "button", class: "chip", onclick: () => state.setLasso(null) }, "lasso ×")] : []));
  }
  state.on("select", tell);
  state.on("rest", () => { code(); announce(`${state.count} of ${zoo.n} networks are selected`); });
  state.on("color", () => { const box = document.getElementById("color"); if (box) box.value = state.color?.name ?? ""; });

  const missing = header.missing.length ? panel("What is missing here", h("ul", { class: "missing" }, header.missing.map((m) => h("li", {}, m)))) : null;
  fill(document.getElementById("app"), top, bar,
    h("div", { class: "grid two" }, panel("Map of weights", mapView(state, glance), { class: "lead" }), panel("Network", cardView(state), { class: "side" })),
    panel("Settings and metrics", parallelView(state), {}, "Drag along an axis to select, click a level to add it; a name opens it for the keyboard."),
    h("div", { class: "grid" }, panel("What moves accuracy", effectsView(state)), panel("Histogram", histogramView(state)),
      panel("Over training", h("div", {}, curvesView(state, ["test_accuracy", "validation_accuracy"]), curvesView(state, ["test_loss", "validation_loss", "train_loss"])))),
    panel("Selected networks", tableView(state, glance)),
    panel("The selection as code", h("div", { class: "grid codes" }, block("with zoo_datasets", first, "copy-select"), block("with datasets alone", second, "copy-filter"))),
    h("div", { class: "grid" }, panel("Splits and audit", audit(header)), panel("About this zoo", about(header))), missing,
    h("footer", {}, `Made by weightzoo ${header.version}. Nothing on this page is sent anywhere.`));
  tell(); code();
  window.weightzoo = { zoo, state }; // for those who open a console
  performance.mark("drawn");
}

function audit(header) {
  const total = Object.values(header.splits).reduce((a, b) => a + b, 0);
  const bar = h("div", { class: "splits", role: "img", "aria-label": Object.entries(header.splits).map(([s, n]) => `${s} ${n}`).join(", ") }, Object.entries(header.splits).map(([s, n], i) => { const part = h("span", { class: `part${i}` }, `${s} ${number(n)}`); part.style.flexGrow = String(n); return part; }));
  const lines = header.audit?.slice(1).map((line) => {
    const [, kind, rest] = line.match(/^\s*([^:]+): (.*)$/s) ?? [null, "", line], leaks = rest.startsWith("LEAK");
    return h("li", { class: leaks ? "leak" : null }, h("b", {}, kind), " ", rest);
  });
  const isHeld = header.audit?.some((line) => /^\s*init groups: none/.test(line)); // the audit looked, and found no leak
  return h("div", {}, total ? bar : null, isHeld && h("p", { class: "note" }, "Networks that share an initialization are on one side."), lines ? h("ul", { class: "audit" }, lines) : h("p", { class: "empty" }, "The audit was left out; why is said below."));
}

function about(header) {
  const fact = (name, value) => value !== null && value !== "" && [h("dt", {}, name), h("dd", {}, value)];
  const cite = h("pre", { tabindex: 0, "aria-label": "Citation" }, header.citation);
  return h("div", {}, h("dl", { class: "facts about" }, fact("sources", header.sources.join(", ")), fact("engines", header.engines.join(", ")), fact("paired along", header.paired.join(", ")), fact("size", `${(header.bytes / 1e6).toFixed(1)} MB`), fact("licence", header.license), fact("digest", h("code", {}, header.digest))),
    header.recipe !== null ? h("details", {}, h("summary", {}, "Recipe"), h("pre", { tabindex: 0 }, header.recipe)) : null,
    h("figure", { class: "code" }, h("figcaption", {}, "Cite", h("button", { type: "button", onclick: (e) => copy(header.citation, e.target) }, "Copy")), cite));
}

function download(name, text) {
  const link = h("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

unpack(document.getElementById("data")).then(start).catch((error) => {
  document.getElementById("app").replaceChildren(h("p", { class: "empty", role: "alert" }, `This page could not be unpacked: ${error.message}. A browser of 2023 or later is needed.`));
  throw error;
});
