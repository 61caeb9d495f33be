/** Tools on the stage: what the pointer does with them, and the steps that can be undone. */

import { BACKGROUND, Magic } from "/static/magic.js";
import { repaint } from "/static/saver.js";
import { around, brush, cut, fill, polygon } from "/static/shapes.js";

/**
 * @typedef {import("./saver.js").Stroke} Stroke
 * @typedef {import("./shapes.js").Box} Box
 * @typedef {{x: number, y: number}} Place
 * @typedef {{k: number, stroke: Stroke, labelled: boolean, gone?: boolean, scribble?: import("./magic.js").Scribble}} Step a stroke
 *   on frame k, and whether that was labelled before; or the label of a frame that was taken back
 * @typedef {object} Page what the tools need to know of the page
 * @property {import("./loader.js").Mask} mask that is shown
 * @property {number} shown the frame @property {number} wanted
 * @property {Set<number>} labelled
 * @property {(k: number) => Promise<boolean>} reach show a frame
 * @property {() => void} about tell of what changed
 * @property {(text: string) => void} note
 * @property {() => void} stay on this frame, whichever is written
 */

const STEPS = 500; // that can be undone
const BIGGEST = 400; // brush, pixels
const CLOSE = 9; // screen pixels to the first corner of a polygon, at which a click closes it

export class Painter {
  /**
   * @param {Page} page
   * @param {import("./view.js").View} view
   * @param {import("./objects.js").Objects} objects
   * @param {import("./saver.js").Saver} saver
   */
  constructor(page, view, objects, saver) {
    this.page = page;
    this.view = view;
    this.objects = objects;
    this.saver = saver;
    this.tool = "brush";
    this.size = Math.max(3, Math.round(Math.min(view.width, view.height) / 24));
    /** @type {Step[]} */
    this.past = [];
    /** @type {Step[]} */
    this.future = [];
    /** @type {Promise<void>} */
    this.steps = Promise.resolve();
    this.stepping = 0;
    /** @type {{before: Uint16Array, box: Box | null, last: Place, id: number} | null} */
    this.stroke = null;
    /** @type {Place[]} corners of a polygon that is not closed */
    this.outline = [];
    this.magic = new Magic(this);
    this.scribbling = false;
    this.pointer = { x: -1, y: -1, inside: false };
    /** @type {Map<number, Place>} fingers on the stage */
    this.fingers = new Map();
    /** @type {Place | null} */
    this.moving = null;
    this.spread = 1;
    /** @type {() => void} */
    this.resized = () => {};
    view.drawPen = (context) => this.draw(context);
    this.listen();
  }

  /** Whether something is half done. */
  get busy() {
    return this.holds || this.scribbling || this.magic.asking || this.outline.length > 0;
  }

  /** Whether the pointer changes the label right now. */
  get holds() {
    return Boolean(this.stroke);
  }

  get canvas() {
    return { ids: this.page.mask.ids, width: this.view.width, height: this.view.height, locked: this.objects.locked };
  }

  /** @param {string} tool */
  choose(tool) {
    this.tool = tool;
    this.outline = [];
    if (tool !== "magic" && tool !== "background") this.magic.clear();
    this.pen.style.cursor = tool === "pan" ? "grab" : tool === "brush" || tool === "eraser" ? "none" : "crosshair";
    this.view.redraw();
  }

  /** @param {number} size pixels */
  resize(size) {
    this.size = Math.min(BIGGEST, Math.max(1, Math.round(size)));
    this.resized();
    this.view.redraw();
  }

  /** @param {number} factor at least a pixel is added or taken */
  scale(factor) {
    this.resize(factor > 1 ? Math.max(this.size + 1, this.size * factor) : Math.min(this.size - 1, this.size * factor));
  }

  // --- steps -----------------------------------------------------------------------------------------------------------

  /** What a tool did to the mask, as one step. @param {Uint16Array} before @param {Box | null} box */
  commit(before, box) {
    if (!box) return null;
    const { mask, labelled } = this.page;
    const { width } = this.view;
    const was = cut(before, width, box);
    const is = cut(mask.ids, width, box);
    if (was.every((id, i) => id === is[i]) && labelled.has(mask.k)) return null;
    /** @type {Stroke} */
    const stroke = { k: mask.k, x: box.x0, y: box.y0, width: box.x1 - box.x0, height: box.y1 - box.y0, before: was, after: is };
    /** @type {Step} */
    const step = { k: mask.k, stroke, labelled: labelled.has(mask.k) };
    this.record(step);
    this.save(stroke);
    return step;
  }

  /** @param {Step} step that can be undone from now on */
  record(step) {
    this.past.push(step);
    if (this.past.length > STEPS) this.past.shift();
    this.future.length = 0;
  }

  /** @param {Stroke} stroke */
  save(stroke) {
    this.page.stay();
    this.page.labelled.add(stroke.k);
    this.saver.add({ kind: "paint", k: stroke.k, stroke });
    this.page.about();
  }

  undo() {
    return this.step(this.past, this.future, true);
  }

  redo() {
    return this.step(this.future, this.past, false);
  }

  /** One step after the other. @param {Step[]} from @param {Step[]} to @param {boolean} undoing */
  step(from, to, undoing) {
    this.stepping++;
    this.steps = this.steps.then(() => this.take(from, to, undoing)).finally(() => this.stepping--);
    return this.steps;
  }

  /** @param {Step[]} from @param {Step[]} to @param {boolean} undoing */
  async take(from, to, undoing) {
    const act = from.at(-1);
    if (!act || this.holds || !(await this.page.reach(act.k)) || from.at(-1) !== act) return;
    from.pop();
    to.push(act);
    this.replay(act, undoing);
    this.view.redraw();
  }

  /** Do a step once more, or back, in the frame that is shown. @param {Step} act @param {boolean} undoing */
  replay(act, undoing) {
    if (act.scribble) this.magic.stepped(act.scribble, undoing, act.k);
    const { mask } = this.page;
    const { stroke } = act;
    if (undoing ? !act.labelled : act.gone) {
      if (!this.page.labelled.has(stroke.k)) return this.page.about();
      this.release(stroke.k);
    } else if (act.gone) {
      const before = mask.ids.slice();
      mask.ids.set(stroke.before);
      this.save({ ...stroke, before, after: stroke.before });
    } else {
      const other = undoing ? { ...stroke, before: stroke.after, after: stroke.before } : stroke;
      repaint(other, mask.ids, this.view.width);
      this.save(other);
    }
  }

  /** Take the label of the frame that is shown back, as a step. */
  takeBack() {
    const { mask, labelled } = this.page;
    const { width, height } = this.view;
    if (!labelled.has(mask.k) || this.stroke) return;
    const ids = mask.ids.slice();
    const stroke = { k: mask.k, x: 0, y: 0, width, height, before: ids, after: ids };
    this.record({ k: mask.k, stroke, labelled: true, gone: true });
    this.release(mask.k);
  }

  /** Frame k is a labelled frame no more. @param {number} k */
  release(k) {
    this.page.stay();
    this.page.labelled.delete(k);
    this.saver.add({ kind: "take-back", k });
    this.page.about();
  }

  /** Give up what is half done. */
  cancel() {
    if (this.stroke) this.page.mask.ids.set(this.stroke.before);
    this.stroke = null;
    this.outline = [];
    if (this.scribbling) this.magic.scribbles.pop();
    this.scribbling = false;
    this.view.redraw();
  }

  /** The mask that is painted on is another one: put the stroke that is not done on it. @param {Uint16Array} ids */
  carry(ids) {
    if (!this.stroke) return;
    const { before } = this.stroke;
    const painted = this.page.mask.ids;
    this.stroke.before = ids.slice();
    for (let i = 0; i < ids.length; i++) if (painted[i] !== before[i]) ids[i] = painted[i];
  }

  closeOutline() {
    const id = this.brushId();
    const points = this.outline;
    this.outline = [];
    if (points.length > 2 && id !== null) this.apply(() => polygon(this.canvas, points, id));
    this.view.redraw();
  }

  /** @param {() => Box | null} work on the mask */
  apply(work) {
    const before = this.page.mask.ids.slice();
    this.commit(before, work());
  }

  /** @returns {number | null} the id to paint, if one may be painted */
  brushId() {
    const { objects } = this;
    if (this.tool === "eraser") return 0;
    if (objects.locked.has(objects.chosen)) {
      this.page.note(`${objects.nameOf(objects.chosen)} is locked`);
      return null;
    }
    if (objects.hidden.has(objects.chosen)) objects.toggle(objects.chosen, "hidden");
    return objects.chosen;
  }

  /** @param {Place} at @returns {number} */
  idAt(at) {
    const [x, y] = [Math.floor(at.x), Math.floor(at.y)];
    const { width, height } = this.view;
    return x >= 0 && y >= 0 && x < width && y < height ? this.page.mask.ids[y * width + x] : 0;
  }

  // --- the pointer -----------------------------------------------------------------------------------------------------

  get pen() {
    return this.view.canvases[2];
  }

  listen() {
    const { pen } = this;
    pen.addEventListener("pointerdown", (event) => this.down(event));
    pen.addEventListener("pointermove", (event) => this.move(event));
    for (const name of /** @type {const} */ (["pointerup", "pointercancel"])) pen.addEventListener(name, (event) => this.up(event));
    pen.addEventListener("pointerleave", () => {
      this.pointer.inside = false;
      this.view.redraw();
    });
    pen.addEventListener("dblclick", () => this.tool === "polygon" && this.closeOutline());
    pen.addEventListener("contextmenu", (event) => event.preventDefault());
    pen.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  /** @param {PointerEvent} event */
  down(event) {
    const { pen, page, fingers } = this;
    pen.focus({ preventScroll: true });
    this.view.ids = page.mask.ids;
    pen.setPointerCapture(event.pointerId);
    if (event.pointerType === "touch") fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (fingers.size === 2) {
      this.cancel();
      this.spread = this.distance();
      this.moving = this.middle();
    } else if (event.button === 1 || this.tool === "pan") this.moving = { x: event.clientX, y: event.clientY };
    else if ([0, 2, 5].includes(event.button) && page.mask.k === page.shown && page.shown === page.wanted) this.touch(event);
    this.view.redraw();
  }

  /** What a tool does where it touches. @param {PointerEvent} event */
  touch(event) {
    const at = this.view.place(event);
    if (event.altKey || this.tool === "pick") {
      const id = this.idAt(at);
      if (id) this.objects.choose(id);
      return;
    }
    const erases = event.button !== 0;
    if (this.tool === "magic" || this.tool === "background") {
      const id = erases || this.tool === "background" ? BACKGROUND : this.brushId();
      if (id === null) return;
      this.magic.begin(at, id);
      this.scribbling = true;
      return;
    }
    const id = erases ? 0 : this.brushId();
    if (id === null) return;
    if (this.tool === "polygon" && !erases) {
      const [start] = this.outline;
      if (this.outline.length > 2 && Math.hypot(start.x - at.x, start.y - at.y) * this.view.scale < CLOSE) this.closeOutline();
      else this.outline.push(at);
    } else if (this.tool === "fill" && !erases) this.apply(() => fill(this.canvas, Math.floor(at.x), Math.floor(at.y), id));
    else {
      this.stroke = { before: this.page.mask.ids.slice(), box: null, last: at, id };
      this.stroke.box = brush(this.canvas, at, at, this.size, id);
    }
  }

  /** @param {PointerEvent} event */
  move(event) {
    const { view, fingers } = this;
    this.pointer = { ...view.place(event), inside: true };
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (fingers.size === 2 && this.moving) {
      const now = this.middle(), apart = this.distance();
      const box = view.stage.getBoundingClientRect();
      view.pan(now.x - this.moving.x, now.y - this.moving.y);
      view.zoom(apart / this.spread, now.x - box.left, now.y - box.top);
      [this.moving, this.spread] = [now, apart];
    } else if (this.moving) {
      view.pan(event.clientX - this.moving.x, event.clientY - this.moving.y);
      this.moving = { x: event.clientX, y: event.clientY };
    } else this.drag(event);
    view.redraw();
  }

  /** What a tool does where it is drawn along. @param {PointerEvent} event */
  drag(event) {
    const { view, stroke } = this;
    if (this.scribbling) this.magic.scribbles.at(-1)?.places.push(view.place(event));
    else if (stroke) {
      const events = event.getCoalescedEvents?.() ?? [];
      for (const one of events.length ? events : [event]) {
        const at = view.place(one);
        stroke.box = around(stroke.box, brush(this.canvas, stroke.last, at, this.size, stroke.id));
        stroke.last = at;
      }
    }
  }

  /** @param {PointerEvent} event */
  up(event) {
    this.fingers.delete(event.pointerId);
    this.moving = null;
    this.lift();
  }

  /** The pointer lets go. */
  lift() {
    if (this.scribbling) {
      this.scribbling = false;
      void this.magic.end();
    }
    if (!this.stroke) return;
    const { before, box } = this.stroke;
    this.stroke = null;
    this.commit(before, box);
  }

  /** @param {WheelEvent} event */
  wheel(event) {
    event.preventDefault();
    if (event.shiftKey || event.altKey) {
      this.scale((event.deltaY || event.deltaX) < 0 ? 1.15 : 1 / 1.15);
      return;
    }
    const box = this.view.stage.getBoundingClientRect();
    const turns = Math.max(-60, Math.min(60, event.deltaY)) / 150;
    this.view.zoom(2 ** -turns, event.clientX - box.left, event.clientY - box.top);
  }

  middle() {
    const [a, b] = [...this.fingers.values()];
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  }

  distance() {
    const [a, b] = [...this.fingers.values()];
    return Math.max(1, Math.hypot(a.x - b.x, a.y - b.y));
  }

  /** The brush, and the polygon that is not closed. @param {CanvasRenderingContext2D} context in CSS pixels */
  draw(context) {
    const { view, pointer, outline } = this;
    const on = (/** @type {Place} */ p) => /** @type {[number, number]} */ ([view.x + p.x * view.scale, view.y + p.y * view.scale]);
    const line = (/** @type {() => void} */ path) => {
      for (const [colour, width] of /** @type {[string, number][]} */ ([["#000b", 3], ["#fff", 1.2]])) {
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.beginPath();
        path();
        context.stroke();
      }
    };
    this.magic.draw(context, on);
    if (pointer.inside && (this.tool === "brush" || this.tool === "eraser")) {
      line(() => context.arc(...on(pointer), Math.max(1, (this.size / 2) * view.scale), 0, 7));
    }
    if (outline.length) {
      line(() => [...outline, pointer].forEach((p) => context.lineTo(...on(p))));
      line(() => context.arc(...on(outline[0]), 5, 0, 7));
    }
  }
}
