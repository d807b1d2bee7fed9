// What is selected, looked at and colored; views draw anew when they are told.

import { hasLevels, levelOf } from "./data.js";

export class State {
  constructor(zoo) {
    this.zoo = zoo;
    this.brushes = new Map(); // column name → {levels: Set} or {low, high}
    this.lasso = null; // Uint8Array of models, or nothing
    this.selected = new Uint8Array(zoo.n).fill(1);
    this.count = zoo.n;
    this.focus = -1;
    this.hover = -1;
    this.color = null;
    this.listeners = new Map();
    this.waiting = new Set();
    this.isMoving = false;
  }

  get isActive() { return this.brushes.size > 0 || this.lasso !== null; }

  on(event, act) { for (const e of event.split(" ")) this.listeners.set(e, [...(this.listeners.get(e) ?? []), act]); }
  tell(event) { for (const act of this.listeners.get(event) ?? []) act(); }

  /** Run once before the next picture, however often it is asked for. */
  soon(act) {
    if (this.waiting.has(act)) return;
    this.waiting.add(act);
    if (this.waiting.size === 1) requestAnimationFrame(() => { const all = [...this.waiting]; this.waiting.clear(); for (const a of all) a(); });
  }

  /** Something is dragged: what is slow waits until it rests. */
  move() {
    this.isMoving = true;
    clearTimeout(this.rest);
    this.rest = setTimeout(() => { this.isMoving = false; this.tell("rest"); }, 140);
  }

  brush(name, range) {
    if (range) this.brushes.set(name, range); else this.brushes.delete(name);
    this.choose();
  }

  setLasso(mask) { this.lasso = mask; this.choose(); }
  clear() { this.brushes.clear(); this.lasso = null; this.choose(); }

  choose() {
    const { zoo, selected } = this;
    if (this.lasso) selected.set(this.lasso); else selected.fill(1);
    for (const [name, range] of this.brushes) {
      const column = zoo.byName.get(name);
      if (range.levels) for (let m = 0; m < zoo.n; m++) { if (!range.levels.has(levelOf(column, m))) selected[m] = 0; }
      else for (let m = 0; m < zoo.n; m++) { const v = column.values[m]; if (!(v >= range.low && v <= range.high)) selected[m] = 0; }
    }
    let count = 0;
    for (let m = 0; m < zoo.n; m++) count += selected[m];
    this.count = count;
    this.move();
    this.tell("select");
  }

  toggleLevel(column, level) {
    if (!hasLevels(column)) return;
    const now = this.brushes.get(column.name)?.levels;
    const next = new Set(now ?? []);
    if (next.has(level)) next.delete(level); else next.add(level);
    this.brush(column.name, next.size ? { levels: next } : null);
  }

  setFocus(model) { if (this.focus !== model) { this.focus = model; this.tell("focus"); } }
  setHover(model) { if (this.hover !== model) { this.hover = model; this.tell("hover"); } }
  setColor(name) { this.color = this.zoo.byName.get(name) ?? null; this.tell("color"); }
}
