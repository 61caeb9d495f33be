/**
 * Sends strokes to the server, one after the other, and keeps each until it is on the disk. A lost connection or a full
 * disk makes them wait. Where a mask changed meanwhile, the strokes are put on top of what it is now.
 */

import { ask, Refused } from "/static/api.js";

/**
 * @typedef {{k: number, x: number, y: number, width: number, height: number, before: Uint16Array, after: Uint16Array}} Stroke
 *   ids of a rectangle of frame k before and after
 * @typedef {{kind: "paint", k: number, stroke: Stroke} | {kind: "take-back", k: number}} Act
 */

export class Saver {
  /**
   * @param {(k: number) => Promise<{ids: Uint16Array, version: number}>} load the mask of a frame as the server has it
   * @param {(waiting: number, why: string) => void} told
   * @param {(k: number, ids: Uint16Array | null) => void} changed the mask of a frame is another one; null is not known
   * @param {number} width of frames
   */
  constructor(load, told, changed, width) {
    this.load = load;
    this.told = told;
    this.changed = changed;
    this.width = width;
    /** @type {Act[]} */
    this.acts = [];
    /** @type {Map<number, number>} version of each mask that the strokes are painted on */
    this.bases = new Map();
    this.sending = false;
    this.slowest = 0;
    this.latest = 0;
  }

  get waiting() {
    return this.acts.length;
  }

  /** @param {number} k */
  waits(k) {
    return this.acts.some((act) => act.k === k);
  }

  /** A mask was loaded. @param {number} k @param {number} version */
  based(k, version) {
    if (!this.waits(k)) this.bases.set(k, version);
  }

  /** Put what waits on a mask that the server has without it. @param {number} k @param {Uint16Array} ids */
  onTop(k, ids) {
    for (const act of this.acts) if (act.k === k && act.kind === "paint") repaint(act.stroke, ids, this.width);
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
        const version = await this.one(act);
        this.latest = performance.now() - began;
        this.slowest = Math.max(this.slowest, this.latest);
        this.acts.shift();
        this.bases.set(act.k, version);
        if (act.kind === "take-back" && !this.waits(act.k)) this.changed(act.k, null);
        wait = 300;
        this.told(this.acts.length, "");
      } catch (error) {
        if (error instanceof Refused && error.status === 409) {
          await this.rebase(act.k).catch(() => {});
          continue;
        }
        if (error instanceof Refused && (error.status === 400 || error.status === 422)) {
          this.acts.shift();
          this.told(this.acts.length, error.message);
          this.changed(act.k, null);
          continue;
        }
        this.told(this.acts.length, error instanceof Refused ? error.message : "no connection");
        await new Promise((resolve) => setTimeout(resolve, wait));
        wait = Math.min(wait * 2, 3000);
      }
    }
    this.sending = false;
  }

  /** @param {Act} act @returns {Promise<number>} the mask's new version */
  async one(act) {
    if (act.kind === "take-back") return (await (await ask("DELETE", `/api/masks/${act.k}`)).json()).version;
    const { x, y, width, height, after } = act.stroke;
    const base = this.bases.get(act.k) ?? 0;
    const path = `/api/masks/${act.k}?x=${x}&y=${y}&width=${width}&height=${height}&base=${base}`;
    return (await (await ask("PATCH", path, new Uint8Array(after.buffer, after.byteOffset, after.byteLength))).json()).version;
  }

  /** @param {number} k */
  async rebase(k) {
    const { ids, version } = await this.load(k);
    this.bases.set(k, version);
    this.onTop(k, ids);
    this.changed(k, ids);
  }
}

/** Paint the pixels that a stroke changed, and make it state what is there then. @param {Stroke} stroke @param {Uint16Array} ids @param {number} width */
function repaint(stroke, ids, width) {
  for (let row = 0; row < stroke.height; row++) {
    for (let column = 0; column < stroke.width; column++) {
      const i = row * stroke.width + column;
      const to = (stroke.y + row) * width + stroke.x + column;
      if (stroke.before[i] === stroke.after[i]) stroke.before[i] = stroke.after[i] = ids[to];
      else ids[to] = stroke.after[i];
    }
  }
}
