/** What tools do to a mask: pure functions of ids in rows. Each returns the rectangle that it touched, or null. */

/**
 * @typedef {{ids: Uint16Array, width: number, height: number, locked: Set<number>}} Canvas
 * @typedef {{x0: number, y0: number, x1: number, y1: number}} Box x1 and y1 are one past the last pixel
 */

/** @param {Box | null} a @param {Box | null} b @returns {Box | null} */
export function around(a, b) {
  if (!a || !b) return a ?? b;
  return { x0: Math.min(a.x0, b.x0), y0: Math.min(a.y0, b.y0), x1: Math.max(a.x1, b.x1), y1: Math.max(a.y1, b.y1) };
}

/**
 * A line as wide as a brush, round at its ends.
 * @param {Canvas} canvas @param {{x: number, y: number}} from @param {{x: number, y: number}} to
 * @param {number} size diameter in pixels @param {number} id
 */
export function brush(canvas, from, to, size, id) {
  const r = size / 2;
  const box = inside(canvas, {
    x0: Math.floor(Math.min(from.x, to.x) - r),
    y0: Math.floor(Math.min(from.y, to.y) - r),
    x1: Math.ceil(Math.max(from.x, to.x) + r) + 1,
    y1: Math.ceil(Math.max(from.y, to.y) + r) + 1,
  });
  if (!box) return null;
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const length = dx * dx + dy * dy;
  const near = Math.max(r * r, 0.25);
  for (let y = box.y0; y < box.y1; y++) {
    for (let x = box.x0; x < box.x1; x++) {
      const [px, py] = [x + 0.5 - from.x, y + 0.5 - from.y];
      const t = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
      const [ex, ey] = [px - t * dx, py - t * dy];
      if (ex * ex + ey * ey <= near) put(canvas, y * canvas.width + x, id);
    }
  }
  return box;
}

/**
 * A polygon, by the even-odd rule at the centres of pixels.
 * @param {Canvas} canvas @param {{x: number, y: number}[]} points @param {number} id
 */
export function polygon(canvas, points, id) {
  const xs = points.map((p) => p.x), ys = points.map((p) => p.y);
  const box = inside(canvas, {
    x0: Math.floor(Math.min(...xs)),
    y0: Math.floor(Math.min(...ys)),
    x1: Math.ceil(Math.max(...xs)) + 1,
    y1: Math.ceil(Math.max(...ys)) + 1,
  });
  if (!box) return null;
  for (let y = box.y0; y < box.y1; y++) {
    const at = y + 0.5;
    const crossings = [];
    for (let i = 0; i < points.length; i++) {
      const a = points[i], b = points[(i + 1) % points.length];
      if (a.y <= at !== b.y <= at) crossings.push(a.x + ((at - a.y) / (b.y - a.y)) * (b.x - a.x));
    }
    crossings.sort((a, b) => a - b);
    for (let i = 0; i + 1 < crossings.length; i += 2) {
      const first = Math.max(box.x0, Math.ceil(crossings[i] - 0.5)), last = Math.min(box.x1 - 1, Math.floor(crossings[i + 1] - 0.5));
      for (let x = first; x <= last; x++) put(canvas, y * canvas.width + x, id);
    }
  }
  return box;
}

/**
 * The pixels of the same id that hang together with one.
 * @param {Canvas} canvas @param {number} x @param {number} y @param {number} id
 */
export function fill(canvas, x, y, id) {
  const { ids, width, height, locked } = canvas;
  if (x < 0 || y < 0 || x >= width || y >= height) return null;
  const old = ids[y * width + x];
  if (old === id || locked.has(old)) return null;
  const box = { x0: x, y0: y, x1: x + 1, y1: y + 1 };
  const stack = [y * width + x];
  while (stack.length) {
    const at = /** @type {number} */ (stack.pop());
    if (ids[at] !== old) continue;
    const row = Math.floor(at / width) * width;
    let left = at, right = at;
    while (left > row && ids[left - 1] === old) left--;
    while (right < row + width - 1 && ids[right + 1] === old) right++;
    ids.fill(id, left, right + 1);
    box.x0 = Math.min(box.x0, left - row);
    box.x1 = Math.max(box.x1, right - row + 1);
    box.y0 = Math.min(box.y0, row / width);
    box.y1 = Math.max(box.y1, row / width + 1);
    for (const next of [row - width, row + width]) {
      if (next < 0 || next >= width * height) continue;
      for (let i = left; i <= right; i++) {
        const j = next + i - row;
        if (ids[j] === old && (i === left || ids[j - 1] !== old)) stack.push(j);
      }
    }
  }
  return box;
}

/** The ids of a rectangle. @param {Uint16Array} ids @param {number} width @param {Box} box */
export function cut(ids, width, { x0, y0, x1, y1 }) {
  const found = new Uint16Array((x1 - x0) * (y1 - y0));
  for (let y = y0; y < y1; y++) found.set(ids.subarray(y * width + x0, y * width + x1), (y - y0) * (x1 - x0));
  return found;
}

/** @param {Canvas} canvas @param {number} at @param {number} id */
function put(canvas, at, id) {
  if (!canvas.locked.has(canvas.ids[at])) canvas.ids[at] = id;
}

/** @param {Canvas} canvas @param {Box} box @returns {Box | null} */
function inside({ width, height }, box) {
  const cut = { x0: Math.max(0, box.x0), y0: Math.max(0, box.y0), x1: Math.min(width, box.x1), y1: Math.min(height, box.y1) };
  return cut.x0 < cut.x1 && cut.y0 < cut.y1 ? cut : null;
}
