/** Pictures and masks of frames, and a few of each that are kept. */

import { ask } from "/static/api.js";
import { decodeIds } from "/static/png.js";

/**
 * @typedef {Map<number, [number, number, number]>} Points x, y and confidence by id
 * @typedef {{k: number, ids: Uint16Array, points: Points, version: number}} Mask what a frame shows: ids of its pixels, or points
 */

const PICTURES = 160 * 2 ** 20; // bytes of decoded pictures that are kept

export class Loader {
  /**
   * @param {number} width of frames @param {number} height
   * @param {"masks" | "points"} what is labelled
   * @param {(found: Mask) => void} loaded a mask came from the server
   */
  constructor(width, height, what, loaded) {
    this.what = what;
    this.width = width;
    this.height = height;
    this.loaded = loaded;
    this.most = Math.min(60, Math.max(3, Math.floor(PICTURES / (4 * width * height))));
    /** @type {Map<number, Mask>} */
    this.masks = new Map();
    /** @type {Map<number, number>} times that a mask was asked for or forgotten: an answer to an earlier one is old */
    this.turns = new Map();
    /** @type {Map<number, Promise<ImageBitmap>>} */
    this.pictures = new Map();
    /** @type {Set<number>} frames that show the picture beside them */
    this.damaged = new Set();
    this.near = 0; // frames around it are kept
  }

  /** @param {number} k @returns {Promise<ImageBitmap>} */
  picture(k) {
    let found = this.pictures.get(k);
    if (!found) {
      found = ask("GET", `/api/frames/${k}`).then(async (r) => {
        if (r.headers.has("x-damaged")) this.damaged.add(k);
        return createImageBitmap(await r.blob());
      });
      found.catch(() => this.pictures.delete(k));
      this.pictures.set(k, found);
      for (const old of this.pictures.keys()) {
        if (this.pictures.size <= this.most) break;
        if (Math.abs(old - this.near) > 2) this.pictures.delete(old);
      }
    }
    return found;
  }

  /** The mask of a frame as the server has it. @param {number} k @returns {Promise<Mask>} */
  async fetchMask(k) {
    const response = await ask("GET", `/api/${this.what}/${k}`);
    const version = Number(response.headers.get("x-version"));
    if (this.what === "points") return { k, ids: new Uint16Array(0), points: pointsOf(await response.json()), version };
    const empty = response.status === 204;
    const ids = empty ? new Uint16Array(this.width * this.height) : (await decodeIds(await response.arrayBuffer())).ids;
    return { k, ids, points: new Map(), version };
  }

  /** The mask of a frame with what waits to be saved. @param {number} k @returns {Promise<Mask>} */
  async mask(k) {
    for (;;) {
      const kept = this.masks.get(k);
      if (kept) return kept;
      const turn = (this.turns.get(k) ?? 0) + 1;
      this.turns.set(k, turn);
      const found = await this.fetchMask(k);
      if (this.turns.get(k) !== turn) continue; // a later one was asked for, and knows more
      this.loaded(found);
      this.masks.set(k, found);
      for (const old of this.masks.keys()) {
        if (this.masks.size <= this.most) break;
        if (Math.abs(old - this.near) > 2) this.masks.delete(old);
      }
      return found;
    }
  }

  /** What is kept of a mask is not what it is. @param {number} k */
  forget(k) {
    this.masks.delete(k);
    this.turns.set(k, (this.turns.get(k) ?? 0) + 1);
  }
}

/** @param {Record<string, [number, number, number]>} told @returns {Points} */
export function pointsOf(told) {
  return new Map(Object.entries(told).map(([id, at]) => [Number(id), at]));
}
