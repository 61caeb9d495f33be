/**
 * Sends strokes and points to the server, one after the other, and keeps each until it is on the disk. A lost connection or a full
 * disk makes them wait. A stroke says which pixels it changed, so it fits on whatever the mask is by then.
 */

import { ask, Refused } from "/static/api.js";

/**
 * @typedef {{k: number, x: number, y: number, width: number, height: number, before: Uint16Array, after: Uint16Array}} Stroke
 *   ids of a rectangle of frame k before and after
 * @typedef {Record<string, [number, number] | null>} Places of points by id; null is hidden
 * @typedef {{kind: "paint", k: number, stroke: Stroke} | {kind: "place", k: number, places: Places} | {kind: "take-back", k: number}} Act
 */

const KEEP = 65535; // of a pixel that a stroke does not change
const PATIENCE = 3000; // milliseconds between two tries, at most

export class Saver {
  /**
   * @param {(waiting: number, why: string) => void} told
   * @param {(k: number) => void} unknown what the mask of a frame is now is the server's to say
   * @param {number} width of frames
   * @param {"masks" | "points"} what is labelled
   */
  constructor(told, unknown, width, what) {
    this.what = what;
    this.told = told;
    this.unknown = unknown;
    this.width = width;
    /** @type {Act[]} */
    this.acts = [];
    /** @type {Map<number, number>} version of the mask that the page shows of a frame */
    this.versions = new Map();
    this.sending = false;
    this.latest = 0; // milliseconds that the last one took
  }

  get waiting() {
    return this.acts.length;
  }

  /** @param {number} k */
  waits(k) {
    return this.acts.some((act) => act.k === k);
  }

  /** Put what waits on what the server has without it. @param {import("./loader.js").Mask} found */
  onTop({ k, ids, points }) {
    const last = this.acts.findLastIndex((act) => act.k === k && act.kind === "take-back");
    for (const act of this.acts.slice(last + 1)) {
      if (act.k === k && act.kind === "paint") repaint(act.stroke, ids, this.width);
      if (act.k === k && act.kind === "place") replace(act.places, points);
    }
  }

  /** @param {Act} act */
  add(act) {
    this.acts.push(act);
    this.told(this.acts.length, "");
    if (!this.sending) void this.send();
  }

  async send() {
    this.sending = true;
    for (let wait = 300; this.acts.length; ) {
      const act = this.acts[0];
      try {
        const began = performance.now();
        const { before, version } = await this.one(act);
        this.latest = performance.now() - began;
        this.acts.shift();
        wait = 300;
        if (this.versions.get(act.k) === before && act.kind !== "take-back") this.versions.set(act.k, version);
        else this.unknown(act.k);
        this.told(this.acts.length, "");
      } catch (error) {
        if (error instanceof Refused && (error.status === 400 || error.status === 422)) {
          this.acts.shift();
          this.told(this.acts.length, error.message);
          this.unknown(act.k);
          continue;
        }
        this.told(this.acts.length, error instanceof Refused ? error.message : "no connection");
        await new Promise((resolve) => setTimeout(resolve, wait));
        wait = Math.min(wait * 2, PATIENCE);
      }
    }
    this.sending = false;
  }

  /** @param {Act} act @returns {Promise<{before?: number, version: number}>} the mask's versions */
  async one(act) {
    if (act.kind === "take-back") return (await ask("DELETE", `/api/${this.what}/${act.k}`)).json();
    if (act.kind === "place") return (await ask("PATCH", `/api/points/${act.k}`, act.places)).json();
    const { x, y, width, height, before, after } = act.stroke;
    const changed = after.map((id, i) => (id === before[i] ? KEEP : id));
    return (await ask("PATCH", `/api/masks/${act.k}?x=${x}&y=${y}&width=${width}&height=${height}`, new Uint8Array(changed.buffer))).json();
  }
}

/** Paint the pixels that a stroke changed. @param {Stroke} stroke @param {Uint16Array} ids @param {number} width */
export function repaint(stroke, ids, width) {
  for (let row = 0; row < stroke.height; row++) {
    for (let column = 0; column < stroke.width; column++) {
      const i = row * stroke.width + column;
      if (stroke.before[i] !== stroke.after[i]) ids[(stroke.y + row) * width + stroke.x + column] = stroke.after[i];
    }
  }
}

/** Place points, and be sure of those that are there. @param {Places} places @param {Map<number, [number, number, number]>} points */
export function replace(places, points) {
  for (const [id, [x, y]] of points) points.set(id, [x, y, 1]);
  for (const [id, at] of Object.entries(places)) {
    if (at) points.set(Number(id), [at[0], at[1], 1]);
    else points.delete(Number(id));
  }
}
