/** The stage: where on the screen the frame lies, and how it and its mask are drawn. */

/** @typedef {{id: number, name: string, colour: string}} Thing an object of the video */

const MOST = 64; // screen pixels a pixel of the frame

export class View {
  /**
   * @param {HTMLElement} stage
   * @param {number} width of the frame @param {number} height
   */
  constructor(stage, width, height) {
    this.stage = stage;
    this.width = width;
    this.height = height;
    this.canvases = /** @type {HTMLCanvasElement[]} */ (["frame", "mask", "pen"].map((id) => stage.querySelector(`#${id}`)));
    /** CSS pixels a pixel of the frame, and the place of its corner. */
    this.scale = 1;
    this.x = 0;
    this.y = 0;
    this.mode = "overlay";
    this.opacity = 0.45;
    /** @type {ImageBitmap | null} */
    this.picture = null;
    /** @type {Uint16Array} */
    this.ids = new Uint16Array(width * height);
    this.tints = new Uint32Array(65536);
    this.lines = new Uint32Array(65536);
    this.fitted = true;
    this.dirty = false;
    this.dpr = 1;
    /** @type {(context: CanvasRenderingContext2D) => void} draws what the tool shows, in CSS pixels */
    this.drawPen = () => {};
    new ResizeObserver(() => this.resize()).observe(stage);
    this.resize();
  }

  resize() {
    this.dpr = window.devicePixelRatio || 1;
    const { width, height } = this.stage.getBoundingClientRect();
    for (const canvas of this.canvases) {
      canvas.width = Math.max(1, Math.round(width * this.dpr));
      canvas.height = Math.max(1, Math.round(height * this.dpr));
    }
    if (this.fitted) this.fit();
    this.redraw();
  }

  /** Show the whole frame. */
  fit() {
    const { width, height } = this.stage.getBoundingClientRect();
    this.scale = Math.max(0.01, Math.min((width - 16) / this.width, (height - 16) / this.height));
    this.x = (width - this.width * this.scale) / 2;
    this.y = (height - this.height * this.scale) / 2;
    this.fitted = true;
    this.redraw();
  }

  /** @param {number} factor @param {number} x of the place that stays, in CSS pixels of the stage @param {number} y */
  zoom(factor, x, y) {
    const scale = Math.min(MOST, Math.max(0.02, this.scale * factor));
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.redraw();
  }

  /** @param {number} dx @param {number} dy CSS pixels */
  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.fitted = false;
    this.redraw();
  }

  /** The place of a pointer in the frame, in pixels. @param {{clientX: number, clientY: number}} event */
  place(event) {
    const box = this.stage.getBoundingClientRect();
    return { x: (event.clientX - box.left - this.x) / this.scale, y: (event.clientY - box.top - this.y) / this.scale };
  }

  /** @param {Thing[]} things @param {Set<number>} hidden */
  colour(things, hidden) {
    const alpha = this.mode === "mask" ? 255 : this.mode === "overlay" ? Math.round(this.opacity * 255) : 0;
    this.tints.fill(((this.mode === "mask" ? 255 : alpha) << 24) | 0x999999);
    this.lines.fill(this.mode === "frame" ? 0 : 0xff999999);
    for (const { id, colour } of things) {
      const rgb = parseInt(colour.slice(1), 16);
      const bgr = ((rgb & 255) << 16) | (rgb & 0xff00) | (rgb >> 16);
      this.tints[id] = (alpha << 24) | bgr;
      this.lines[id] = this.mode === "frame" ? 0 : (255 << 24) | bgr;
    }
    for (const id of hidden) this.tints[id] = this.lines[id] = 0;
    this.tints[0] = this.lines[0] = this.mode === "mask" ? 0xff000000 : 0;
    this.redraw();
  }

  redraw() {
    if (this.dirty) return;
    this.dirty = true;
    requestAnimationFrame(() => {
      this.dirty = false;
      this.draw();
    });
  }

  draw() {
    const [frame, mask, pen] = this.canvases.map((c) => /** @type {CanvasRenderingContext2D} */ (c.getContext("2d")));
    const s = this.scale * this.dpr;
    frame.setTransform(1, 0, 0, 1, 0, 0);
    frame.clearRect(0, 0, frame.canvas.width, frame.canvas.height);
    if (this.picture) {
      frame.imageSmoothingEnabled = s < 2;
      frame.imageSmoothingQuality = "high";
      frame.drawImage(this.picture, this.x * this.dpr, this.y * this.dpr, this.width * s, this.height * s);
    }
    this.drawMask(mask, s);
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, pen.canvas.width, pen.canvas.height);
    pen.setTransform(this.dpr, 0, 0, this.dpr, 0, 0);
    this.drawPen(pen);
  }

  /** Every screen pixel takes the colour of its pixel in the mask. @param {CanvasRenderingContext2D} context @param {number} s */
  drawMask(context, s) {
    const { width: cw, height: ch } = context.canvas;
    context.clearRect(0, 0, cw, ch);
    if (!this.ids.length) return;
    const [ox, oy] = [this.x * this.dpr, this.y * this.dpr];
    const left = Math.max(0, Math.ceil(ox)), right = Math.min(cw, Math.floor(ox + this.width * s));
    const top = Math.max(0, Math.ceil(oy)), bottom = Math.min(ch, Math.floor(oy + this.height * s));
    const w = right - left, h = bottom - top;
    if (w <= 0 || h <= 0) return;
    const image = context.createImageData(w, h);
    const out = new Uint32Array(image.data.buffer);
    const columns = new Int32Array(w + 2);
    for (let i = 0; i < w + 2; i++) columns[i] = Math.min(this.width - 1, Math.max(0, Math.floor((left + i - 0.5 - ox) / s)));
    const rowOf = (/** @type {number} */ j) => Math.min(this.height - 1, Math.max(0, Math.floor((top + j + 0.5 - oy) / s))) * this.width;
    const { ids, tints, lines } = this;
    for (let j = 0; j < h; j++) {
      const up = rowOf(j - 1), here = rowOf(j), down = rowOf(j + 1);
      for (let i = 0, to = j * w; i < w; i++, to++) {
        const column = columns[i + 1];
        const id = ids[here + column];
        if (id === 0) {
          out[to] = tints[0];
          continue;
        }
        const edge = ids[here + columns[i]] !== id || ids[here + columns[i + 2]] !== id || ids[up + column] !== id || ids[down + column] !== id;
        out[to] = edge ? lines[id] : tints[id];
      }
    }
    context.putImageData(image, left, top);
  }
}
