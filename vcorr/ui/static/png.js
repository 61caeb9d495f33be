/**
 * Decodes the PNG files of masks: one channel of 1 to 16 bits, not interlaced. The pixels are ids, so they must not pass
 * through a canvas, which turns them into colours, and in some browsers adds noise.
 */

/**
 * @param {ArrayBuffer} buffer
 * @returns {Promise<{width: number, height: number, ids: Uint16Array}>}
 */
export async function decodeIds(buffer) {
  const view = new DataView(buffer);
  const width = view.getUint32(16);
  const height = view.getUint32(20);
  const depth = view.getUint8(24);
  const kind = view.getUint8(25);
  if (view.getUint32(0) !== 0x89504e47 || (kind !== 0 && kind !== 3) || view.getUint8(28) !== 0) {
    throw new Error("not a mask");
  }
  /** @type {BlobPart[]} */
  const parts = [];
  for (let at = 8; at < buffer.byteLength; ) {
    const length = view.getUint32(at);
    if (view.getUint32(at + 4) === 0x49444154) parts.push(new Uint8Array(buffer, at + 8, length));
    at += length + 12;
  }
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  const data = new Uint8Array(await new Response(stream).arrayBuffer());
  return { width, height, ids: unfiltered(data, width, height, depth) };
}

/**
 * @param {Uint8Array} data rows, each behind the number of its filter
 * @param {number} width @param {number} height @param {number} depth bits a pixel
 */
function unfiltered(data, width, height, depth) {
  const ids = new Uint16Array(width * height);
  const step = Math.max(1, depth >> 3);
  const length = Math.ceil((width * depth) / 8);
  /** @type {Uint8Array} */
  let above = new Uint8Array(length);
  for (let y = 0; y < height; y++) {
    const start = y * (length + 1);
    const filter = data[start];
    const row = data.subarray(start + 1, start + 1 + length);
    for (let i = 0; filter > 0 && i < length; i++) {
      const left = i >= step ? row[i - step] : 0;
      const up = above[i];
      if (filter === 1) row[i] += left;
      else if (filter === 2) row[i] += up;
      else if (filter === 3) row[i] += (left + up) >> 1;
      else row[i] += paeth(left, up, i >= step ? above[i - step] : 0);
    }
    above = row;
    const to = y * width;
    if (depth === 8) ids.set(row, to);
    else if (depth === 16) for (let x = 0; x < width; x++) ids[to + x] = (row[2 * x] << 8) | row[2 * x + 1];
    else {
      const each = 8 / depth;
      for (let x = 0; x < width; x++) {
        ids[to + x] = (row[Math.floor(x / each)] >> (8 - depth * ((x % each) + 1))) & ((1 << depth) - 1);
      }
    }
  }
  return ids;
}

/** @param {number} a @param {number} b @param {number} c */
function paeth(a, b, c) {
  const p = a + b - c;
  const [pa, pb, pc] = [Math.abs(p - a), Math.abs(p - b), Math.abs(p - c)];
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
}
