/** The timeline: what is labelled, what is computed, how sure it is, where scenes begin; and where one is. */

/**
 * @typedef {object} Line
 * @property {number} first @property {number} end frames that may be labelled, first .. end-1
 * @property {number} at the frame that is shown
 * @property {Set<number>} labelled
 * @property {[number, number][]} computed ranges, both ends inside
 * @property {[number, number][]} stale
 * @property {number[]} cuts
 * @property {[number, number] | null} marks
 * @property {{first: number, values: Record<string, number[]>}} confidence in percent, -1 is unknown
 * @property {Map<number, string>} colours by object
 */

const BAND = 12; // CSS pixels: of what is computed
const TOP = 16; // of the labelled frames

export class Timeline {
  /** @param {HTMLCanvasElement} canvas @param {(k: number) => void} go */
  constructor(canvas, go) {
    this.canvas = canvas;
    /** @type {Line | null} */
    this.line = null;
    new ResizeObserver(() => this.draw()).observe(canvas);
    const to = (/** @type {PointerEvent} */ event) => {
      if (!this.line) return;
      const box = canvas.getBoundingClientRect();
      const share = Math.min(0.999999, Math.max(0, (event.clientX - box.left) / box.width));
      go(this.line.first + Math.floor(share * (this.line.end - this.line.first)));
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      to(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) to(event);
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** @param {Line} line */
  show(line) {
    this.line = line;
    this.canvas.ariaValueMin = String(line.first);
    this.canvas.ariaValueMax = String(line.end - 1);
    this.canvas.ariaValueNow = String(line.at);
    const what = line.labelled.has(line.at) ? "labelled" : within(line.stale, line.at) ? "to redo" : within(line.computed, line.at) ? "computed" : "empty";
    this.canvas.ariaValueText = `frame ${line.at}, ${what}`;
    this.draw();
  }

  draw() {
    const { line, canvas } = this;
    if (!line) return;
    const dpr = window.devicePixelRatio || 1;
    const { width, height } = canvas.getBoundingClientRect();
    canvas.width = Math.round(width * dpr);
    canvas.height = Math.round(height * dpr);
    const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    pen.scale(dpr, dpr);
    const style = getComputedStyle(canvas);
    const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    const count = line.end - line.first;
    const x = (/** @type {number} */ k) => ((k - line.first) / count) * width;
    if (line.marks) {
      pen.fillStyle = colour("--line");
      pen.fillRect(x(line.marks[0]), 0, x(line.marks[1] + 1) - x(line.marks[0]), height);
    }
    for (const [ranges, name] of /** @type {[[number, number][], string][]} */ ([[line.computed, "--computed"], [line.stale, "--stale"]])) {
      pen.fillStyle = colour(name);
      for (const [a, b] of ranges) pen.fillRect(x(a), height - BAND, Math.max(1, x(b + 1) - x(a) + 0.5), BAND);
    }
    this.curves(pen, x, TOP, height - BAND - TOP - 4);
    pen.fillStyle = colour("--cut");
    for (const k of line.cuts) for (let y = 0; y < height - BAND; y += 6) pen.fillRect(x(k) - 0.75, y, 1.5, 4);
    for (const k of line.labelled) {
      pen.fillStyle = colour("--good");
      pen.beginPath();
      pen.arc(x(k + 0.5), 8, 5, 0, 7);
      pen.fill();
      pen.fillRect(x(k), height - BAND, Math.max(2, x(k + 1) - x(k)), BAND);
    }
    pen.fillStyle = colour("--text");
    pen.fillRect(x(line.at + 0.5) - 1, 0, 2, height);
  }

  /** @param {CanvasRenderingContext2D} pen @param {(k: number) => number} x @param {number} top @param {number} height */
  curves(pen, x, top, height) {
    const { confidence, colours } = /** @type {Line} */ (this.line);
    pen.lineWidth = 1.6;
    for (const [id, values] of Object.entries(confidence.values)) {
      pen.strokeStyle = colours.get(Number(id)) ?? "#888";
      pen.beginPath();
      let open = false;
      values.forEach((value, i) => {
        if (value < 0) {
          open = false;
          return;
        }
        const at = [x(confidence.first + i + 0.5), top + height * (1 - value / 100)];
        if (open) pen.lineTo(at[0], at[1]);
        else pen.moveTo(at[0], at[1]);
        open = true;
      });
      pen.stroke();
    }
  }
}

/** @param {[number, number][]} ranges @param {number} k */
export function within(ranges, k) {
  return ranges.some(([a, b]) => a <= k && k <= b);
}
