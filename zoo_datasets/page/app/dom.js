// Elements, canvases and a place for words: whatever a zoo says becomes text, never markup.

/** An element with attributes, listeners (`onclick`) and children, which are elements or text. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A canvas that fills its box; `draw(context, width, height)` is called when its size changes. */
export function canvas(attributes, draw) {
  const element = h("canvas", attributes);
  const fit = () => {
    const box = element.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(box.width * ratio)), height = Math.max(1, Math.round(box.height * ratio));
    if (element.width !== width || element.height !== height) { element.width = width; element.height = height; }
    const context = element.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    return [context, box.width, box.height];
  };
  const paint = () => { const [context, width, height] = fit(); context.clearRect(0, 0, width, height); if (width > 1) draw(context, width, height); };
  new ResizeObserver(paint).observe(element);
  return { element, paint };
}

export const shorten = (text, most = 40) => ([...text].length > most ? `${[...text].slice(0, most - 1).join("")}…` : text);

export function select(title, options, value, onchange, attributes = {}) {
  const box = h("select", { "aria-label": title, onchange: () => onchange(box.value), ...attributes }, options.map(([key, name]) => h("option", { value: key }, shorten(name, 48))));
  box.value = value ?? "";
  return box;
}

let told;
/** Said to screen readers. */
export function announce(text) {
  told ??= document.body.appendChild(h("div", { class: "hidden", role: "status", "aria-live": "polite" }));
  told.textContent = text;
}

export async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.body.appendChild(h("textarea", { class: "hidden", readonly: true }));
    area.value = text; area.select(); document.execCommand("copy"); area.remove();
  }
  button.textContent = "Copied"; announce("Copied");
  setTimeout(() => { button.textContent = before; }, 1200);
}

/** Round marks between two numbers; one where doubles leave no room for marks between them. */
export function ticks(low, high, most) {
  const span = high - low;
  // Nearer than that, k · step does not move with k, and the marks never end.
  if (!(span > 1e-12 * Math.max(Math.abs(low), Math.abs(high)) && Number.isFinite(span))) return [low];
  const rough = span / Math.max(1, most), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((k) => k * power).find((k) => span / k <= most) ?? 10 * power;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(Number((k * step).toPrecision(12)));
  return found;
}

/** Put these in an element's place of what was there; nothing where one is null. */
export const fill = (element, ...children) => element.replaceChildren(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
