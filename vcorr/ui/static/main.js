/** The page: what it knows, and how its parts hang together. */

import { ask, get, listen, page, Refused } from "/static/api.js";
import { listenToKeys, showKeys } from "/static/keys.js";
import { Objects } from "/static/objects.js";
import { decodeIds } from "/static/png.js";
import { Saver } from "/static/saver.js";
import { around, brush, cut, fill, paste, polygon } from "/static/shapes.js";
import { Timeline, within } from "/static/timeline.js";
import { View } from "/static/view.js";

/** @typedef {import("./saver.js").Stroke} Stroke */
/** @typedef {import("./shapes.js").Box} Box */
/** @typedef {{k: number, ids: Uint16Array, version: number}} Mask */

/** @template {HTMLElement} T @param {string} id @returns {T} */
const $ = (id) => /** @type {any} */ (document.getElementById(id));

const PICTURES = 160 * 2 ** 20; // bytes of decoded pictures that are kept
const TOOLS = /** @type {const} */ ([
  ["brush", "✎", "Brush", "b"],
  ["eraser", "⌫", "Eraser", "e"],
  ["polygon", "⬠", "Polygon", "g"],
  ["fill", "◍", "Fill", "k"],
  ["pick", "⌖", "Pick the object under the pointer", "i"],
  ["pan", "✥", "Move the picture", "h"],
]);

/** @param {any} state as the server tells it */
async function start(state) {
  const { width, height } = state.video;
  const [first, end] = /** @type {[number, number]} */ (state.range);
  const view = new View($("stage"), width, height);
  let labelled = new Set(/** @type {number[]} */ (state.labelled));
  let confidence = { first, values: {}, look: /** @type {number[]} */ ([]) };
  let tool = /** @type {string} */ ("brush");
  let size = Math.max(3, Math.round(Math.min(width, height) / 24));
  let wanted = first;
  let shown = -1;
  let loading = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let playing;
  /** @type {[number, number] | null} */
  let marks = null;
  /** @type {Mask} */
  let mask = { k: -1, ids: view.ids, version: 0 };
  /** @type {Map<number, Mask>} */
  const masks = new Map();
  /** @type {Map<number, Promise<ImageBitmap>>} */
  const pictures = new Map();
  const most = Math.min(60, Math.max(3, Math.floor(PICTURES / (4 * width * height))));
  /** @type {{stroke: Stroke, labelled: boolean}[]} */
  const past = [];
  /** @type {{stroke: Stroke, labelled: boolean}[]} */
  const future = [];

  const objects = new Objects($("objects"), {
    choose: () => about(),
    change: (id, what) => attempt(() => ask("PUT", `/api/objects/${id}`, what)),
    remove: (id) => {
      if (confirm(`Delete ${objects.nameOf(id)} from all labelled frames?`)) void attempt(() => ask("DELETE", `/api/objects/${id}`));
    },
    looked: recolour,
  });
  const timeline = new Timeline($("timeline"), go);
  const saver = new Saver(
    fetchMask,
    (waiting, why) => {
      const pill = $("saved");
      pill.textContent = why && waiting ? `${waiting} not saved: ${why}` : waiting ? "saving" : "saved";
      pill.classList.toggle("waits", waiting > 0);
      pill.classList.toggle("lost", Boolean(why));
      if (why && !waiting) trouble(why);
    },
    (k, ids) => {
      masks.delete(k);
      if (k !== shown) return;
      if (ids) take({ k, ids, version: saver.bases.get(k) ?? 0 });
      else void reload();
    },
    width,
  );

  // --- frames and masks ------------------------------------------------------------------------------------------------

  /** @param {number} k @returns {Promise<ImageBitmap>} */
  function picture(k) {
    let found = pictures.get(k);
    if (!found) {
      found = ask("GET", `/api/frames/${k}`).then(async (r) => createImageBitmap(await r.blob()));
      found.catch(() => pictures.delete(k));
      pictures.set(k, found);
      for (const old of pictures.keys()) {
        if (pictures.size <= most) break;
        if (Math.abs(old - wanted) > 2) {
          pictures.get(old)?.then((bitmap) => bitmap !== view.picture && bitmap.close(), () => {});
          pictures.delete(old);
        }
      }
    }
    return found;
  }

  /** The mask of a frame as the server has it. @param {number} k @returns {Promise<Mask>} */
  async function fetchMask(k) {
    const response = await ask("GET", `/api/masks/${k}`);
    const version = Number(response.headers.get("x-version"));
    const ids = response.status === 204 ? new Uint16Array(width * height) : (await decodeIds(await response.arrayBuffer())).ids;
    return { k, ids, version };
  }

  /** @param {number} k */
  async function maskOf(k) {
    const kept = masks.get(k);
    if (kept) return kept;
    const found = await fetchMask(k);
    saver.based(k, found.version);
    saver.onTop(k, found.ids);
    masks.set(k, found);
    for (const old of masks.keys()) {
      if (masks.size <= most) break;
      if (old !== k && old !== shown) masks.delete(old);
    }
    return found;
  }

  /** @param {Mask} found */
  function take(found) {
    mask = found;
    masks.set(found.k, found);
    view.ids = found.ids;
    view.redraw();
  }

  async function reload() {
    const k = shown;
    masks.delete(k);
    const found = await maskOf(k).catch(() => null);
    if (found && k === shown && !stroke) take(found);
    about();
  }

  /** @param {number} k */
  function go(k) {
    wanted = Math.min(end - 1, Math.max(first, k));
    tellFrame(wanted);
    if (!loading) void catchUp();
  }

  async function catchUp() {
    loading = true;
    while (shown !== wanted) {
      const k = wanted;
      try {
        const began = performance.now();
        const [bitmap, found] = await Promise.all([picture(k), maskOf(k)]);
        view.picture = bitmap;
        stroke = null;
        outline.length = 0;
        take(found);
        shown = k;
        document.body.dataset.shown = String(k);
        document.body.dataset.took = String(Math.round(performance.now() - began));
        about();
      } catch (error) {
        trouble(/** @type {Error} */ (error).message);
        await new Promise((resolve) => setTimeout(resolve, 700));
        if (wanted === k && error instanceof Refused) break;
      }
    }
    loading = false;
    if (!playing) for (const k of [shown + 1, shown - 1]) if (k >= first && k < end) void picture(k).catch(() => {});
  }

  // --- painting --------------------------------------------------------------------------------------------------------

  /** @type {{before: Uint16Array, box: Box | null, last: {x: number, y: number}, id: number} | null} */
  let stroke = null;
  /** @type {{x: number, y: number}[]} corners of a polygon that is not closed */
  const outline = [];
  let pointer = { x: -1, y: -1, inside: false };

  const canvas = () => ({ ids: mask.ids, width, height, locked: objects.locked });

  /** @returns {number | null} the id to paint, if one may be painted */
  function brushId() {
    if (tool === "eraser") return 0;
    if (objects.locked.has(objects.chosen)) {
      note(`${objects.nameOf(objects.chosen)} is locked`);
      return null;
    }
    if (objects.hidden.has(objects.chosen)) objects.toggle(objects.chosen, "hidden");
    return objects.things.length ? objects.chosen : 1;
  }

  /** What a tool did, as one step. @param {Uint16Array} before @param {Box | null} box */
  function commit(before, box) {
    if (!box) return;
    const was = cut(before, width, box);
    const is = cut(mask.ids, width, box);
    if (was.every((id, i) => id === is[i]) && labelled.has(mask.k)) return;
    const one = { k: mask.k, x: box.x0, y: box.y0, width: box.x1 - box.x0, height: box.y1 - box.y0, before: was, after: is };
    past.push({ stroke: one, labelled: labelled.has(mask.k) });
    if (past.length > 500) past.shift();
    future.length = 0;
    save(one);
  }

  /** @param {Stroke} one */
  function save(one) {
    labelled.add(one.k);
    saver.add({ kind: "paint", k: one.k, stroke: { ...one } });
    about();
  }

  /** @param {{stroke: Stroke, labelled: boolean}[]} from @param {{stroke: Stroke, labelled: boolean}[]} to @param {boolean} undoing */
  async function step(from, to, undoing) {
    const act = from.pop();
    if (!act) return;
    to.push(act);
    const { k } = act.stroke;
    if (shown !== k) {
      go(k);
      while (shown !== k && wanted === k) await new Promise((resolve) => setTimeout(resolve, 20));
      if (shown !== k) return;
    }
    const [before, after] = undoing ? [act.stroke.after, act.stroke.before] : [act.stroke.before, act.stroke.after];
    paste(mask.ids, width, act.stroke, after);
    view.redraw();
    if (undoing && !act.labelled) {
      labelled.delete(k);
      saver.add({ kind: "take-back", k });
    } else save({ ...act.stroke, before, after });
    about();
  }

  const undo = () => void step(past, future, true);
  const redo = () => void step(future, past, false);

  function takeBack() {
    if (!labelled.has(shown)) return;
    labelled.delete(shown);
    saver.add({ kind: "take-back", k: shown });
    about();
  }

  function closeOutline() {
    const id = brushId();
    const points = outline.splice(0);
    if (points.length > 2 && id !== null && mask.k === shown) {
      const before = mask.ids.slice();
      commit(before, polygon(canvas(), points, id));
    }
    view.redraw();
  }

  const pen = view.canvases[2];
  /** @type {Map<number, {x: number, y: number}>} fingers on the stage */
  const fingers = new Map();
  /** @type {{x: number, y: number} | null} */
  let moving = null;
  let spread = 0;

  pen.addEventListener("pointerdown", (event) => {
    pen.focus({ preventScroll: true });
    if (event.pointerType === "touch") fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    pen.setPointerCapture(event.pointerId);
    if (fingers.size === 2) {
      cancelStroke();
      spread = distance();
      moving = middle();
      return;
    }
    if (event.button === 1 || tool === "pan" || spaceHeld) {
      moving = { x: event.clientX, y: event.clientY };
      return;
    }
    if (event.button > 0 && event.button !== 2 && event.button !== 5) return;
    const at = view.place(event);
    if (mask.k !== shown || shown !== wanted) return;
    if (event.altKey || tool === "pick") {
      const id = idAt(at);
      if (id) objects.choose(id);
      return;
    }
    const erases = event.button === 2 || event.button === 5 || tool === "eraser";
    const id = erases ? 0 : brushId();
    if (id === null) return;
    if (tool === "polygon" && !erases) {
      const near = outline.length > 2 && Math.hypot(outline[0].x - at.x, outline[0].y - at.y) * view.scale < 9;
      if (near) closeOutline();
      else outline.push(at);
    } else if (tool === "fill" && !erases) {
      const before = mask.ids.slice();
      commit(before, fill(canvas(), Math.floor(at.x), Math.floor(at.y), id));
    } else {
      stroke = { before: mask.ids.slice(), box: null, last: at, id };
      stroke.box = brush(canvas(), at, at, size, id);
    }
    view.redraw();
  });

  pen.addEventListener("pointermove", (event) => {
    pointer = { ...view.place(event), inside: true };
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (fingers.size === 2 && moving) {
      const now = middle(), apart = distance();
      const box = $("stage").getBoundingClientRect();
      view.pan(now.x - moving.x, now.y - moving.y);
      view.zoom(apart / spread, now.x - box.left, now.y - box.top);
      [moving, spread] = [now, apart];
    } else if (moving) {
      view.pan(event.clientX - moving.x, event.clientY - moving.y);
      moving = { x: event.clientX, y: event.clientY };
    } else if (stroke) {
      for (const one of event.getCoalescedEvents?.() ?? [event]) {
        const at = view.place(one);
        stroke.box = around(stroke.box, brush(canvas(), stroke.last, at, size, stroke.id));
        stroke.last = at;
      }
    }
    view.redraw();
  });

  const lift = (/** @type {PointerEvent} */ event) => {
    fingers.delete(event.pointerId);
    moving = null;
    if (!stroke) return;
    const { before, box } = stroke;
    stroke = null;
    commit(before, box);
  };
  pen.addEventListener("pointerup", lift);
  pen.addEventListener("pointercancel", lift);
  pen.addEventListener("pointerleave", () => {
    pointer.inside = false;
    view.redraw();
  });
  pen.addEventListener("dblclick", () => tool === "polygon" && closeOutline());
  pen.addEventListener("contextmenu", (event) => event.preventDefault());
  pen.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const step = Math.sign(event.deltaY || event.deltaX);
      if (event.shiftKey || event.altKey) resizeBrush(step < 0 ? 1.15 : 1 / 1.15);
      else {
        const box = $("stage").getBoundingClientRect();
        view.zoom(2 ** (-Math.max(-60, Math.min(60, event.deltaY)) / 150), event.clientX - box.left, event.clientY - box.top);
      }
    },
    { passive: false },
  );

  const middle = () => {
    const [a, b] = [...fingers.values()];
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 };
  };
  const distance = () => {
    const [a, b] = [...fingers.values()];
    return Math.max(1, Math.hypot(a.x - b.x, a.y - b.y));
  };

  function cancelStroke() {
    if (stroke) mask.ids.set(stroke.before);
    stroke = null;
    outline.length = 0;
    view.redraw();
  }

  /** @param {{x: number, y: number}} at */
  function idAt(at) {
    const [x, y] = [Math.floor(at.x), Math.floor(at.y)];
    return x >= 0 && y >= 0 && x < width && y < height ? mask.ids[y * width + x] : 0;
  }

  view.drawPen = (context) => {
    const [sx, sy] = [view.x + pointer.x * view.scale, view.y + pointer.y * view.scale];
    const ring = (/** @type {() => void} */ path) => {
      for (const [colour, line] of /** @type {[string, number][]} */ ([["#000b", 3], ["#fff", 1.2]])) {
        context.strokeStyle = colour;
        context.lineWidth = line;
        context.beginPath();
        path();
        context.stroke();
      }
    };
    if (pointer.inside && (tool === "brush" || tool === "eraser")) ring(() => context.arc(sx, sy, Math.max(1, (size / 2) * view.scale), 0, 7));
    if (outline.length) {
      ring(() => {
        for (const p of [...outline, pointer]) context.lineTo(view.x + p.x * view.scale, view.y + p.y * view.scale);
      });
      ring(() => context.arc(view.x + outline[0].x * view.scale, view.y + outline[0].y * view.scale, 5, 0, 7));
    }
  };

  // --- what the page shows ---------------------------------------------------------------------------------------------

  function recolour() {
    view.colour(objects.things, objects.hidden);
    redrawLine();
  }

  function redrawLine() {
    const colours = new Map(objects.things.map((t) => /** @type {const} */ ([t.id, t.colour])));
    timeline.show({ first, end, at: wanted, labelled, computed: state.computed, stale: state.stale, cuts: state.cuts, marks, confidence, colours });
  }

  /** @param {number} k */
  function tellFrame(k) {
    $("index").value = String(k);
    redrawLine();
  }

  function about() {
    const k = shown;
    const what = labelled.has(k)
      ? "labelled"
      : within(state.stale, k)
        ? "computed from earlier labels: propagate to redo it"
        : within(state.computed, k)
          ? "computed"
          : "not labelled yet";
    const sure = Object.entries(confidence.values)
      .map(([id, values]) => /** @type {[string, number]} */ ([id, values[k - confidence.first]]))
      .filter(([, value]) => value >= 0 && !labelled.has(k))
      .map(([id, value]) => `${objects.nameOf(Number(id))} ${value} %`);
    $("about").textContent = `Frame ${k} is ${what}.${sure.length ? ` Confidence: ${sure.join(", ")}.` : ""}`;
    $("undo").disabled = !past.length;
    $("redo").disabled = !future.length;
    $("take-back").disabled = !labelled.has(k);
    redrawLine();
  }

  /** @param {any} job */
  function tellJob(job) {
    state.job = job;
    for (const id of ["backwards", "both", "forwards"]) $(id).hidden = job.running;
    $("between").hidden = job.running || !marks;
    $("stop").hidden = !job.running;
    $("export").disabled = job.running;
    const share = job.running && job.total ? job.done / job.total : 0;
    $("done").style.width = `${100 * share}%`;
    $("bar").ariaValueNow = String(Math.round(100 * share));
    const rate = job.rate ? ` · ${job.rate.toFixed(1)} frames/s` : "";
    $("job").textContent = job.running ? `${job.done && job.done < job.total ? `${job.done} of ${job.total} steps${rate}` : job.said || "starting"}` : job.error ? "" : job.said;
    if (job.error) trouble(job.error);
    if (job.running && $("follow").checked && job.frame !== null && !stroke && !outline.length && !saver.waiting) go(job.frame);
  }

  /** @param {any} now */
  function takeState(now) {
    const before = state;
    state = now;
    labelled = new Set(now.labelled);
    for (const act of saver.acts) act.kind === "paint" ? labelled.add(act.k) : labelled.delete(act.k);
    for (const [k, kept] of masks) if (kept.version !== (now.versions[k] ?? 0) && !saver.waits(k) && saver.bases.get(k) !== now.versions[k]) masks.delete(k);
    if (shown >= 0 && !masks.has(shown) && !stroke) void reload();
    objects.show(now.objects.length ? now.objects : [{ id: 1, name: "", colour: "#ff0000" }]);
    recolour();
    tellJob(now.job);
    about();
    if (before.job.running && !now.job.running && now.job.what === "export" && now.job.result && downloads) void download();
  }

  async function loadConfidence() {
    const found = await get("/api/confidence").catch(() => null);
    if (found) confidence = found;
    about();
  }

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let later;

  /** @param {string} event @param {any} data */
  function told(event, data) {
    if (event === "state") takeState(data);
    else if (event === "job") tellJob(data);
    else if (event === "confidence") void loadConfidence();
    else if (event === "mask") {
      const k = data.frame;
      if (data.stale) state.stale = data.stale;
      if (data.objects) objects.show(data.objects), recolour();
      if (data.by !== page) {
        if (data.labelled) labelled.add(k);
        else if (data.by) labelled.delete(k);
        if (!data.by && !within(state.computed, k)) state.computed.push([k, k]);
        if (!saver.waits(k)) {
          masks.delete(k);
          if (k === shown) void reload();
        }
        later ??= setTimeout(() => ((later = undefined), void loadConfidence()), 1500);
      }
      about();
    }
  }

  /** @param {string} text */
  function note(text) {
    $("note").textContent = text;
    $("note").hidden = false;
    setTimeout(() => ($("note").hidden = true), 2500);
  }

  // --- commands --------------------------------------------------------------------------------------------------------

  /** @param {object} within */
  const propagate = (within) => void attempt(() => ask("POST", "/api/propagate", within));
  const stop = () => void attempt(() => ask("POST", "/api/stop", {}));
  let downloads = false;

  async function download() {
    downloads = false;
    await attempt(async () => {
      const { address } = await (await ask("POST", "/api/ticket", {})).json();
      const link = document.createElement("a");
      link.href = address;
      link.download = "";
      link.click();
    });
  }

  /** @param {number} factor */
  function resizeBrush(factor) {
    const next = factor > 1 ? Math.max(size + 1, Math.round(size * factor)) : Math.min(size - 1, Math.round(size * factor));
    size = Math.min(400, Math.max(1, next));
    $("brush-size").value = String(size);
    $("brush-said").textContent = String(size);
    view.redraw();
  }

  /** @param {string} name */
  function choose(name) {
    tool = name;
    outline.length = 0;
    for (const button of $("tools").children) button.setAttribute("aria-pressed", String(/** @type {HTMLElement} */ (button).dataset.tool === name));
    pen.style.cursor = name === "pan" ? "grab" : name === "brush" || name === "eraser" ? "none" : "crosshair";
    view.redraw();
  }

  /** @param {number} way */
  function toLabelled(way) {
    const sorted = [...labelled].sort((a, b) => a - b);
    const next = way > 0 ? sorted.find((k) => k > wanted) : sorted.reverse().find((k) => k < wanted);
    if (next !== undefined) go(next);
  }

  let turn = 0;
  function toCheck() {
    const look = confidence.look.filter((k) => !labelled.has(k));
    if (!look.length) return note("no frame stands out");
    const at = look.indexOf(wanted);
    turn = at >= 0 ? (at + 1) % look.length : 0;
    go(look[turn]);
  }

  function play() {
    if (playing) {
      clearTimeout(playing);
      playing = undefined;
    } else {
      const began = performance.now();
      const from = wanted >= end - 1 ? first : wanted;
      const next = () => {
        const k = from + Math.floor(((performance.now() - began) / 1000) * state.video.fps);
        if (k >= end) return play();
        if (!loading) go(k);
        void picture(Math.min(end - 1, k + 2)).catch(() => {});
        playing = setTimeout(next, 1000 / state.video.fps / 2);
      };
      next();
    }
    $("play").textContent = playing ? "⏸" : "▶";
    $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  }

  /** @param {0 | 1} which */
  function mark(which) {
    const [a, b] = marks ?? [wanted, wanted];
    marks = which ? [Math.min(a, wanted), wanted] : [wanted, Math.max(b, wanted)];
    tellJob(state.job);
    redrawLine();
  }

  function addObject() {
    const id = objects.things.length || state.objects.length ? objects.free : 1;
    void attempt(async () => {
      await ask("PUT", `/api/objects/${id}`, { name: "" });
      objects.choose(id);
    });
  }

  /** @param {number} n */
  function chooseNth(n) {
    const thing = objects.things[n - 1];
    if (thing) objects.choose(thing.id);
  }

  let spaceHeld = false;
  document.addEventListener("keyup", (event) => event.key === "Shift" && (spaceHeld = false));

  /** @type {import("./keys.js").Shortcut[]} */
  const shortcuts = [
    ...TOOLS.map(([name, , said, key]) => ({ keys: [key], said, run: () => choose(name) })),
    { keys: ["["], said: "Smaller brush", run: () => resizeBrush(1 / 1.15), held: true },
    { keys: ["]"], said: "Larger brush", run: () => resizeBrush(1.15), held: true },
    { keys: ["enter"], said: "Close the polygon", run: closeOutline },
    { keys: ["backspace"], said: "Take the last corner back", run: () => (outline.pop(), view.redraw()) },
    { keys: ["escape"], said: "Give up the stroke or polygon", run: cancelStroke },
    { keys: ["ctrl+z"], said: "Undo", run: undo, held: true },
    { keys: ["ctrl+shift+z", "ctrl+y"], said: "Redo", run: redo, held: true },
    { keys: ["delete"], said: "Take the label of this frame back", run: takeBack },
    { keys: ["arrowleft", "a"], said: "Frame before", run: () => go(wanted - 1), held: true },
    { keys: ["arrowright", "d"], said: "Next frame", run: () => go(wanted + 1), held: true },
    { keys: ["shift+arrowleft"], said: "Labelled frame before", run: () => toLabelled(-1) },
    { keys: ["shift+arrowright"], said: "Next labelled frame", run: () => toLabelled(1) },
    { keys: ["pageup"], said: "Ten frames back", run: () => go(wanted - 10), held: true },
    { keys: ["pagedown"], said: "Ten frames on", run: () => go(wanted + 10), held: true },
    { keys: ["home"], said: "First frame", run: () => go(first) },
    { keys: ["end"], said: "Last frame", run: () => go(end - 1) },
    { keys: ["space"], said: "Play, pause", run: play },
    { keys: ["c"], said: "Next frame to check", run: toCheck },
    { keys: ["p"], said: "Propagate everywhere, or stop", run: () => (state.job.running ? stop() : propagate({})) },
    { keys: ["shift+f"], said: "Propagate forwards from here", run: () => propagate({ first: wanted }) },
    { keys: ["shift+b"], said: "Propagate backwards from here", run: () => propagate({ last: wanted }) },
    { keys: [","], said: "Mark the first frame of a stretch", run: () => mark(0) },
    { keys: ["."], said: "Mark its last frame", run: () => mark(1) },
    { keys: ["shift+p"], said: "Propagate between the marks", run: () => marks && propagate({ first: marks[0], last: marks[1] }) },
    { keys: ["n"], said: "Add an object", run: addObject },
    ...[1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) => ({ keys: [String(n)], said: `Object ${n} of the list`, run: () => chooseNth(n) })),
    { keys: ["x"], said: "Hide the object", run: () => objects.toggle(objects.chosen, "hidden") },
    { keys: ["l"], said: "Lock the object", run: () => objects.toggle(objects.chosen, "locked") },
    { keys: ["o"], said: "Overlay, outlines, mask, picture", run: () => nextMode() },
    { keys: ["+", "="], said: "Zoom in", run: () => zoomBy(1.25), held: true },
    { keys: ["-"], said: "Zoom out", run: () => zoomBy(0.8), held: true },
    { keys: ["0"], said: "Show the whole frame", run: () => view.fit() },
    { keys: ["z"], said: "Pixel by pixel", run: () => zoomBy(1 / view.scale) },
    { keys: ["ctrl+e"], said: "Export", run: () => $("exports").showModal() },
    { keys: ["?", "f1"], said: "These shortcuts", run: () => $("keys").showModal() },
  ];

  /** @param {number} factor */
  function zoomBy(factor) {
    const { width: w, height: h } = $("stage").getBoundingClientRect();
    const at = pointer.inside ? { x: view.x + pointer.x * view.scale, y: view.y + pointer.y * view.scale } : { x: w / 2, y: h / 2 };
    view.zoom(factor, at.x, at.y);
  }

  function nextMode() {
    const select = /** @type {HTMLSelectElement} */ ($("mode"));
    select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
    select.dispatchEvent(new Event("change"));
  }

  // --- beginning -------------------------------------------------------------------------------------------------------

  for (const [name, sign, said, key] of TOOLS) {
    const button = document.createElement("button");
    button.dataset.tool = name;
    button.textContent = sign;
    button.title = `${said} (${key.toUpperCase()})`;
    button.setAttribute("aria-label", said);
    button.addEventListener("click", () => choose(name));
    $("tools").append(button);
  }
  for (const form of state.forms) {
    const button = document.createElement("button");
    button.textContent = form;
    button.addEventListener("click", () => {
      downloads = $("download").checked;
      $("exports").close();
      void attempt(() => ask("POST", "/api/export", { form }));
    });
    $("forms").append(button);
  }
  showKeys($("key-list"), shortcuts, [
    ["wheel", "Zoom"], ["shift+wheel", "Size of the brush"], ["right button", "Erase"], ["middle button", "Move the picture"],
    ["alt+click", "Pick the object under the pointer"], ["two fingers", "Move and zoom"],
  ]);
  listenToKeys(shortcuts);
  const onClick = /** @type {Record<string, () => void>} */ ({
    first: () => toLabelled(-1), back: () => go(wanted - 1), play, next: () => go(wanted + 1), last: () => toLabelled(1),
    undo, redo, "take-back": takeBack, add: addObject, check: toCheck, stop,
    both: () => propagate({}), forwards: () => propagate({ first: wanted }), backwards: () => propagate({ last: wanted }),
    between: () => marks && propagate({ first: marks[0], last: marks[1] }),
    export: () => $("exports").showModal(), help: () => $("keys").showModal(),
  });
  for (const [id, run] of Object.entries(onClick)) $(id).addEventListener("click", run);
  $("index").addEventListener("change", () => go(Number($("index").value)));
  $("brush-size").addEventListener("input", () => {
    size = Number($("brush-size").value);
    $("brush-said").textContent = String(size);
  });
  $("opacity").addEventListener("input", () => {
    view.opacity = Number($("opacity").value) / 100;
    recolour();
  });
  $("mode").addEventListener("change", () => {
    view.mode = $("mode").value;
    recolour();
  });
  window.addEventListener("beforeunload", (event) => {
    if (saver.waiting) event.preventDefault();
  });
  $("name").textContent = document.title = state.video.name;
  $("place").textContent = $("export-folder").textContent = state.out;
  $("export-folder").textContent += "/export";
  $("index").min = String(first);
  $("index").max = String(end - 1);
  $("of").textContent = first ? `of ${first} to ${end - 1}` : `of ${end - 1}`;
  resizeBrush(1.0001);
  choose("brush");
  takeState(state);
  $("saved").textContent = "saved";
  go(labelled.size ? Math.min(...labelled) : first);
  void loadConfidence();
  return { told, takeState, saver, view, peek: () => ({ shown, wanted, mask, labelled: [...labelled], past: past.length, state }) };
}

/** @param {() => Promise<any>} work */
async function attempt(work) {
  try {
    trouble("");
    await work();
  } catch (error) {
    trouble(error instanceof Refused ? error.message : "the server does not answer: is `vcorr ui` still running?");
  }
}

/** @param {string} text */
function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

/** @type {Awaited<ReturnType<typeof start>> | null} */
let running = null;
/** @type {[string, any][]} */
const early = [];
void listen(
  (event, data) => (running ? running.told(event, data) : early.push([event, data])),
  async (there, why) => {
    if (!there) {
      $("saved").classList.add("lost");
      if (!running?.saver.waiting) $("saved").textContent = "no connection";
      if (why instanceof Refused) trouble(why.message);
      return;
    }
    const state = await get("/api/state");
    trouble("");
    if (running) running.takeState(state);
    else {
      running = await start(state);
      for (const [event, data] of early.splice(0)) running.told(event, data);
      Object.assign(window, { vcorr: running });
    }
    if (!running.saver.waiting) {
      $("saved").textContent = "saved";
      $("saved").classList.remove("lost", "waits");
    }
  },
);
