/** Magic strokes: scribbles on a frame, from which the server makes a mask. */

import { ask } from "/static/api.js";
import { decodeIds } from "/static/png.js";
import { brush } from "/static/shapes.js";

/**
 * @typedef {import("./shapes.js").Box} Box
 * @typedef {{x: number, y: number}} Place
 * @typedef {{id: number, size: number, places: Place[]}} Scribble id is BACKGROUND off the objects
 */

export const BACKGROUND = 65535;
const WIDEST = 12; // pixels of a scribble: it only says where

export class Magic {
  /** @param {import("./painter.js").Painter} painter */
  constructor(painter) {
    this.painter = painter;
    this.k = -1;
    /** @type {Scribble[]} */
    this.scribbles = [];
    /** @type {Uint16Array | null} the mask before the first of them */
    this.base = null;
    this.asking = false;
  }

  /** Forget the scribbles of a frame that is not shown any more. */
  clear() {
    this.k = -1;
    this.scribbles = [];
    this.base = null;
  }

  /** @param {Place} at @param {number} id */
  begin(at, id) {
    const { mask } = this.painter.page;
    if (this.k !== mask.k) this.clear();
    this.base ??= mask.ids.slice();
    this.k = mask.k;
    this.scribbles.push({ id, size: Math.min(WIDEST, this.painter.size), places: [at] });
  }

  /** Make the mask of all scribbles, as one step. */
  async end() {
    if (this.asking) return;
    this.asking = true;
    const { page, view } = this.painter;
    for (let count = -1; count !== this.scribbles.length && this.scribbles.some((s) => s.id !== BACKGROUND); ) {
      count = this.scribbles.length;
      const k = this.k;
      const { seeds, box } = this.drawn();
      const path = `/api/magic/${k}?x=${box.x0}&y=${box.y0}&width=${box.x1 - box.x0}&height=${box.y1 - box.y0}`;
      page.note("making the mask of the scribbles");
      try {
        const response = await ask("POST", path, new Uint8Array(seeds.buffer));
        const { ids } = await decodeIds(await response.arrayBuffer());
        if (k !== page.mask.k || k !== this.k) break;
        if (count === this.scribbles.length) this.put(ids);
      } catch (error) {
        page.note(/** @type {Error} */ (error).message);
        break;
      }
    }
    this.asking = false;
    view.redraw();
  }

  /** All scribbles as ids of a rectangle. @returns {{seeds: Uint16Array, box: Box}} */
  drawn() {
    const { width, height } = this.painter.view;
    const places = this.scribbles.flatMap((s) => s.places);
    const [xs, ys] = [places.map((p) => p.x), places.map((p) => p.y)];
    const within = (/** @type {number} */ v, /** @type {number} */ most) => Math.min(most, Math.max(0, Math.round(v)));
    const box = {
      x0: within(Math.min(...xs) - WIDEST, width - 1),
      y0: within(Math.min(...ys) - WIDEST, height - 1),
      x1: within(Math.max(...xs) + WIDEST, width),
      y1: within(Math.max(...ys) + WIDEST, height),
    };
    const canvas = { ids: new Uint16Array((box.x1 - box.x0) * (box.y1 - box.y0)), width: box.x1 - box.x0, height: box.y1 - box.y0, locked: new Set() };
    for (const { places, size, id } of this.scribbles) {
      const moved = places.map((p) => ({ x: p.x - box.x0, y: p.y - box.y0 }));
      moved.forEach((p, i) => brush(canvas, moved[Math.max(0, i - 1)], p, size, id));
    }
    return { seeds: canvas.ids, box };
  }

  /** The objects that were scribbled on are what was found; the others stay. @param {Uint16Array} found */
  put(found) {
    const { page, objects } = this.painter;
    const base = /** @type {Uint16Array} */ (this.base);
    const own = new Set(this.scribbles.map((s) => s.id));
    const { ids } = page.mask;
    const before = ids.slice();
    const { width, height } = this.painter.view;
    const box = { x0: width, y0: height, x1: 0, y1: 0 };
    for (let i = 0; i < ids.length; i++) {
      const stays = base[i] && (!own.has(base[i]) || objects.locked.has(base[i]));
      const id = stays ? base[i] : found[i];
      if (id === ids[i]) continue;
      ids[i] = id;
      const [x, y] = [i % width, Math.floor(i / width)];
      box.x0 = Math.min(box.x0, x);
      box.x1 = Math.max(box.x1, x + 1);
      box.y0 = Math.min(box.y0, y);
      box.y1 = Math.max(box.y1, y + 1);
    }
    const step = this.painter.commit(before, box.x0 < box.x1 ? box : null);
    if (step) step.scribble = this.scribbles.at(-1);
  }

  /** A step was undone, or done again. @param {Scribble} scribble @param {boolean} undoing @param {number} k */
  stepped(scribble, undoing, k) {
    if (k !== this.k) return;
    if (undoing) this.scribbles = this.scribbles.filter((s) => s !== scribble);
    else this.scribbles.push(scribble);
  }

  /** @param {CanvasRenderingContext2D} context @param {(p: Place) => [number, number]} on */
  draw(context, on) {
    const { page, view, objects } = this.painter;
    if (this.k !== page.mask.k) return;
    context.lineCap = context.lineJoin = "round";
    for (const { id, size, places } of this.scribbles) {
      const colour = id === BACKGROUND ? "#fff" : (objects.things.find((t) => t.id === id)?.colour ?? "#f00");
      for (const [style, width] of /** @type {[string, number][]} */ ([["#000", size * view.scale + 2], [colour, size * view.scale]])) {
        context.strokeStyle = style;
        context.lineWidth = Math.max(2, width);
        context.beginPath();
        context.moveTo(...on(places[0]));
        for (const p of places) context.lineTo(...on(p));
        context.stroke();
      }
    }
  }
}
