/** The list of objects: name, colour, hide, lock, delete, choose. */

import { icon } from "/static/icons.js";

/** @typedef {import("./view.js").Thing} Thing */

export class Objects {
  /**
   * @param {HTMLElement} list
   * @param {string} noun what one is called that has no name
   * @param {{choose: (id: number) => void, change: (id: number, what: object) => void, remove: (id: number) => void, looked: () => void}} on
   */
  constructor(list, noun, on) {
    this.list = list;
    this.noun = noun;
    this.on = on;
    /** @type {Thing[]} */
    this.things = [];
    this.chosen = 1;
    /** @type {Set<number>} */
    this.hidden = new Set();
    /** @type {Set<number>} */
    this.locked = new Set();
  }

  /** @param {number} id */
  nameOf(id) {
    return this.things.find((t) => t.id === id)?.name || `${this.noun} ${id}`;
  }

  /** @param {Thing[]} things */
  show(things) {
    const same = JSON.stringify(things) === JSON.stringify(this.things);
    this.things = things;
    if (!things.some((t) => t.id === this.chosen) && things.length) this.chosen = things[0].id;
    if (!same || !this.list.children.length) this.build();
    this.mark();
  }

  /** @param {number} id */
  choose(id) {
    this.chosen = id;
    this.mark();
    this.on.choose(id);
  }

  /** The next id that is free. */
  get free() {
    return Math.max(0, ...this.things.map((t) => t.id)) + 1;
  }

  /** @param {number} id @param {"hidden" | "locked"} what */
  toggle(id, what) {
    if (!this[what].delete(id)) this[what].add(id);
    this.mark();
    this.on.looked();
  }

  mark() {
    for (const row of /** @type {Iterable<HTMLElement>} */ (this.list.children)) {
      const id = Number(row.dataset.id);
      row.classList.toggle("chosen", id === this.chosen);
      row.querySelector("[data-do=choose]")?.setAttribute("aria-pressed", String(id === this.chosen));
      for (const [what, on, off] of /** @type {["hidden" | "locked", string, string][]} */ ([["hidden", "hidden", "shown"], ["locked", "locked", "free"]])) {
        const button = row.querySelector(`[data-do=${what}]`);
        button?.setAttribute("aria-pressed", String(this[what].has(id)));
        button?.replaceChildren(icon(this[what].has(id) ? on : off));
      }
    }
  }

  build() {
    this.list.replaceChildren(...this.things.map((thing) => this.row(thing)));
  }

  /** @param {Thing} thing */
  row({ id, name, colour }) {
    const row = document.createElement("li");
    row.dataset.id = String(id);
    const called = name || `${this.noun} ${id}`;
    const button = (/** @type {string} */ what, /** @type {string | Node} */ sign, /** @type {string} */ said, /** @type {() => void} */ run) => {
      const b = document.createElement("button");
      b.dataset.do = what;
      b.append(sign);
      b.title = said;
      b.setAttribute("aria-label", `${said}: ${called}`);
      b.addEventListener("click", run);
      return b;
    };
    const pick = document.createElement("input");
    pick.type = "color";
    pick.value = colour;
    pick.setAttribute("aria-label", `Colour of ${called}`);
    pick.addEventListener("change", () => this.on.change(id, { colour: pick.value }));
    const text = document.createElement("input");
    text.type = "text";
    text.value = name;
    text.maxLength = 100;
    text.placeholder = `${this.noun} ${id}`;
    text.setAttribute("aria-label", `Name of ${called}`);
    text.addEventListener("change", () => this.on.change(id, { name: text.value.trim() }));
    text.addEventListener("focus", () => this.choose(id));
    text.addEventListener("keydown", (event) => {
      if (event.key === "Enter") document.getElementById("pen")?.focus();
    });
    row.append(
      pick,
      button("choose", String(id), "Paint", () => this.choose(id)),
      text,
      button("hidden", "", "Hide", () => this.toggle(id, "hidden")),
      button("locked", "", "Lock", () => this.toggle(id, "locked")),
      button("remove", icon("remove"), "Delete", () => this.on.remove(id)),
    );
    return row;
  }
}
