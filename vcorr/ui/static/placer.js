/** The tool of keypoints: a click places the chosen point, a drag moves one, the right button hides it in this frame. */

import { Painter } from "/static/painter.js";
import { replace } from "/static/saver.js";

/**
 * @typedef {import("./saver.js").Places} Places
 * @typedef {import("./loader.js").Points} Points
 * @typedef {{k: number, before: Places, after: Places, labelled: boolean, gone?: boolean}} Move of points of frame k; see Step
 */

const REACH = 10; // screen pixels around a point in which the pointer takes it
const UNSURE = 0.5; // confidence below which a point is a ring
const RADIUS = 5; // screen pixels

export class Placer extends Painter {
  /**
   * @param {import("./painter.js").Page} page
   * @param {import("./view.js").View} view
   * @param {import("./objects.js").Objects} objects
   * @param {import("./saver.js").Saver} saver
   */
  constructor(page, view, objects, saver) {
    super(page, view, objects, saver);
    this.tool = "point";
    /** @type {{id: number, was: [number, number] | null, at: [number, number]} | null} a point that is held */
    this.held = null;
    /** @type {Points | null} shown in place of the present ones */
    this.earlier = null;
  }

  get holds() {
    return Boolean(this.held);
  }

  /** The places of all points of the frame. @returns {Places} */
  places() {
    const { points } = this.page.mask;
    return Object.fromEntries(this.objects.things.map(({ id }) => [id, at(points.get(id))]));
  }

  // --- steps -----------------------------------------------------------------------------------------------------------

  /** Place a point, or hide it, as a step. @param {number} id @param {[number, number] | null} place */
  put(id, place) {
    const { mask, labelled } = this.page;
    const step = { k: mask.k, before: { [id]: at(mask.points.get(id)) }, after: { [id]: place }, labelled: labelled.has(mask.k) };
    this.record(/** @type {any} */ (step));
    this.send(step.after);
  }

  /** @param {Places} places */
  send(places) {
    const { page } = this;
    const { k, points } = page.mask;
    page.stay();
    page.labelled.add(k);
    replace(places, points);
    this.saver.add({ kind: "place", k, places });
    page.about();
  }

  /** @param {any} act a Move @param {boolean} undoing */
  replay(act, undoing) {
    if (undoing ? act.labelled : !act.gone) this.send(undoing ? act.before : act.after);
    else if (this.page.labelled.has(act.k)) this.release(act.k);
    else this.page.about();
  }

  takeBack() {
    const { mask, labelled } = this.page;
    if (!labelled.has(mask.k) || this.holds) return;
    this.record(/** @type {any} */ ({ k: mask.k, before: this.places(), after: {}, labelled: true, gone: true }));
    this.release(mask.k);
  }

  /** Hide the chosen point in this frame. */
  hide() {
    const id = this.objects.chosen;
    if (this.page.mask.points.has(id) && this.free(id)) this.put(id, null);
    this.view.redraw();
  }

  cancel() {
    this.held = null;
    this.view.redraw();
  }

  /** The points that are shown are others: one that is held stays so. */
  carry() {}

  // --- the pointer -----------------------------------------------------------------------------------------------------

  /** Whether a point may be changed. @param {number} id */
  free(id) {
    if (!this.objects.locked.has(id)) return true;
    this.page.note(`${this.objects.nameOf(id)} is locked`);
    return false;
  }

  /** The point under the pointer. @param {{x: number, y: number}} place @returns {number | undefined} */
  near(place) {
    const apart = (/** @type {[number, number, number]} */ [x, y]) => Math.hypot(x + 0.5 - place.x, y + 0.5 - place.y) * this.view.scale;
    const shown = [...this.page.mask.points].filter(([id]) => !this.objects.hidden.has(id));
    const [best] = shown.map(([id, p]) => /** @type {const} */ ([apart(p), id])).sort((a, b) => a[0] - b[0]);
    return best && best[0] <= REACH ? best[1] : undefined;
  }

  /** @param {PointerEvent} event */
  touch(event) {
    this.earlier = null;
    const place = this.view.place(event);
    const found = this.near(place);
    if (found !== undefined) this.objects.choose(found);
    if (event.altKey || this.tool === "pick") return;
    if (event.button !== 0) {
      if (found !== undefined) this.hide();
      return;
    }
    const id = this.brushId();
    if (id === null) return;
    const { points } = this.page.mask;
    const was = at(points.get(id));
    this.held = { id, was, at: found === id && was ? was : this.inside(place) };
  }

  /** @param {PointerEvent} event */
  drag(event) {
    if (this.held) this.held.at = this.inside(this.view.place(event));
  }

  lift() {
    const { held, objects } = this;
    this.held = null;
    if (!held || (held.was && held.was[0] === held.at[0] && held.was[1] === held.at[1])) return;
    this.put(held.id, held.at);
    if (held.was) return;
    const { points } = this.page.mask;
    const next = objects.things.find(({ id }) => !points.has(id) && !objects.hidden.has(id) && !objects.locked.has(id));
    if (next) objects.choose(next.id);
  }

  /** A place in pixels whose centres are whole numbers, inside the frame. @param {{x: number, y: number}} place @returns {[number, number]} */
  inside({ x, y }) {
    const within = (/** @type {number} */ v, /** @type {number} */ size) => Math.round(100 * Math.min(size - 1, Math.max(0, v - 0.5))) / 100;
    return [within(x, this.view.width), within(y, this.view.height)];
  }

  /** @param {CanvasRenderingContext2D} context in CSS pixels */
  draw(context) {
    const { view, objects, held } = this;
    if (view.mode === "frame") return;
    const points = new Map(this.earlier ?? this.page.mask.points);
    if (held) points.set(held.id, [...held.at, 1]);
    for (const { id, colour } of objects.things) {
      const point = points.get(id);
      if (!point || objects.hidden.has(id)) continue;
      const [x, y] = [view.x + (point[0] + 0.5) * view.scale, view.y + (point[1] + 0.5) * view.scale];
      const chosen = id === objects.chosen;
      disc(context, x, y, RADIUS + (chosen ? 3.5 : 1.5), chosen ? "#fff" : "#000b", null);
      disc(context, x, y, RADIUS, colour, point[2] < UNSURE ? null : colour);
      if (!chosen) continue;
      context.font = "12px system-ui, sans-serif";
      context.lineWidth = 3;
      context.strokeStyle = "#000c";
      context.strokeText(objects.nameOf(id), x + RADIUS + 7, y + 4);
      context.fillStyle = "#fff";
      context.fillText(objects.nameOf(id), x + RADIUS + 7, y + 4);
    }
  }
}

/** @param {[number, number, number] | undefined} point @returns {[number, number] | null} */
function at(point) {
  return point ? [point[0], point[1]] : null;
}

/** @param {CanvasRenderingContext2D} context @param {number} x @param {number} y @param {number} radius @param {string} line @param {string | null} fill */
function disc(context, x, y, radius, line, fill) {
  context.beginPath();
  context.arc(x, y, radius, 0, 7);
  context.lineWidth = 2;
  context.strokeStyle = line;
  context.stroke();
  if (fill) {
    context.fillStyle = fill;
    context.fill();
  }
}
