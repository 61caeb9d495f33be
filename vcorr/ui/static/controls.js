/** The buttons, fields and keys of the page, and what they do. */

import { ask } from "/static/api.js";
import { icon } from "/static/icons.js";
import { listenToKeys, showKeys } from "/static/keys.js";
import { pointsOf } from "/static/loader.js";
import { decodeIds } from "/static/png.js";

/**
 * @typedef {object} Page what commands need
 * @property {import("./painter.js").Page} now
 * @property {import("./view.js").View} view
 * @property {import("./painter.js").Painter} painter
 * @property {import("./placer.js").Placer | null} placer the same, where points are labelled
 * @property {import("./objects.js").Objects} objects
 * @property {import("./loader.js").Loader} loader
 * @property {number} first frame @property {number} end one past the last
 * @property {(k: number) => void} go
 * @property {() => void} follow show each frame that is written, until a person goes elsewhere
 * @property {(text: string) => void} note
 * @property {(work: () => Promise<any>) => Promise<void>} attempt
 * @property {() => any} state @property {() => number[]} look frames to check, the worst first
 * @property {(marks: [number, number]) => void} marked
 * @property {() => boolean} loading
 */

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

const MASK_TOOLS = /** @type {[string, string, string][]} */ ([
  ["magic", "Magic stroke on the object", "m"],
  ["background", "Magic stroke on the background", "shift+m"],
  ["brush", "Brush", "b"],
  ["eraser", "Eraser", "e"],
  ["polygon", "Polygon", "g"],
  ["fill", "Fill", "k"],
  ["pick", "Pick the object under the pointer", "i"],
  ["pan", "Move the picture", "h"],
]);
const POINT_TOOLS = /** @type {[string, string, string][]} */ ([
  ["point", "Place and move points", "b"],
  ["pick", "Choose the point under the pointer", "i"],
  ["pan", "Move the picture", "h"],
]);
const MASK_POINTERS = /** @type {[string, string][]} */ ([
  ["shift+wheel", "Size of the brush"],
  ["right button", "Erase"],
  ["alt+click", "Pick the object under the pointer"],
]);
const POINT_POINTERS = /** @type {[string, string][]} */ ([
  ["right button", "Hide the point in this frame"],
  ["alt+click", "Choose the point under the pointer"],
]);
const POINTERS = /** @type {[string, string][]} */ ([
  ["wheel", "Zoom"],
  ["middle button", "Move the picture"],
  ["two fingers", "Move and zoom"],
]);

/** @param {Page} page */
export function wire(page) {
  const { now, view, painter, placer, objects, loader, first, end, go, follow, note, attempt } = page;
  const { fps } = page.state().video;
  const tools = placer ? POINT_TOOLS : MASK_TOOLS;
  let downloads = false;
  let added = 0; // the last id that was asked for; the page may not have been told of it yet
  /** @type {number | undefined} */
  let playing;
  /** @type {[number, number] | null} */
  let marks = null;

  /** @param {object} within */
  const propagate = (within) => {
    follow();
    void attempt(() => ask("POST", "/api/propagate", within));
  };
  const between = () => marks && propagate({ first: marks[0], last: marks[1] });
  const stop = () => void attempt(() => ask("POST", "/api/stop", {}));

  /** An export is done. */
  function exported() {
    if (!downloads) return;
    downloads = false;
    void attempt(async () => {
      const { address } = await (await ask("POST", "/api/ticket", {})).json();
      const link = document.createElement("a");
      link.href = address;
      link.download = "";
      link.click();
    });
  }

  /** @param {string} name of a tool */
  function choose(name) {
    painter.choose(name);
    for (const button of $("tools").children) button.setAttribute("aria-pressed", String(button.dataset.tool === name));
  }

  /** @param {number} way */
  function toLabelled(way) {
    const sorted = [...now.labelled].sort((a, b) => a - b);
    const next = way > 0 ? sorted.find((k) => k > now.wanted) : sorted.reverse().find((k) => k < now.wanted);
    if (next !== undefined) go(next);
  }

  function toCheck() {
    const look = page.look().filter((k) => !now.labelled.has(k));
    if (look.length) go(look[(look.indexOf(now.wanted) + 1) % look.length]);
    else note("no frame stands out");
  }

  function play() {
    if (playing) {
      clearTimeout(playing);
      playing = undefined;
    } else {
      const began = performance.now();
      const from = now.wanted >= end - 1 ? first : now.wanted;
      const next = () => {
        const k = from + Math.floor(((performance.now() - began) / 1000) * fps);
        if (k >= end) return play();
        if (!page.loading()) go(k);
        void loader.picture(Math.min(end - 1, k + 2)).catch(() => {});
        playing = window.setTimeout(next, 500 / fps);
      };
      next();
    }
    $("play").replaceChildren(icon(playing ? "pause" : "play"));
    $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  }

  /** @param {0 | 1} which end of a stretch */
  function mark(which) {
    const [a, b] = marks ?? [now.wanted, now.wanted];
    marks = which ? [Math.min(a, now.wanted), now.wanted] : [now.wanted, Math.max(b, now.wanted)];
    page.marked(marks);
  }

  function addObject() {
    const id = (added = Math.max(added + 1, page.state().objects.length ? objects.free : 1));
    void attempt(async () => {
      await ask("PUT", `/api/objects/${id}`, { name: "" });
      objects.choose(id);
    });
  }

  /** @param {number} factor */
  function zoomBy(factor) {
    const { width: w, height: h } = $("stage").getBoundingClientRect();
    const { x, y, inside } = painter.pointer;
    view.zoom(factor, inside ? view.x + x * view.scale : w / 2, inside ? view.y + y * view.scale : h / 2);
  }

  function nextMode() {
    const select = $("mode");
    select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
    select.dispatchEvent(new Event("change"));
  }

  /** Show the points before the last correction, or the present ones again. @param {import("./placer.js").Placer} placer */
  async function pointsBefore(placer) {
    const k = now.shown;
    if (placer.earlier) placer.earlier = null;
    else {
      const response = await ask("GET", `/api/points-before/${k}`);
      if (response.status === 204) return note("the last correction left this frame as it is");
      const points = pointsOf(await response.json());
      if (k !== now.shown) return;
      placer.earlier = points;
      note("as it was before the last correction");
    }
    view.redraw();
  }

  /** Show the mask before the last correction, or the present one again. */
  async function before() {
    if (placer) return pointsBefore(placer);
    if (view.ids !== now.mask.ids) view.ids = now.mask.ids;
    else {
      const k = now.shown;
      const response = await ask("GET", `/api/before/${k}`);
      if (response.status === 204) return note("the last correction left this frame as it is");
      const { ids } = await decodeIds(await response.arrayBuffer());
      if (k !== now.shown) return;
      view.ids = ids;
      note("as it was before the last correction");
    }
    view.redraw();
  }

  const exporting = () => $("exports").showModal();
  const helping = () => $("keys").showModal();
  /** @type {import("./keys.js").Shortcut[]} */
  const shortcuts = [
    ...tools.map(([name, said, key]) => ({ keys: [key], said, run: () => choose(name) })),
    ...(placer
      ? [
          { keys: ["backspace"], said: "Hide the point in this frame", run: () => placer.hide() },
          { keys: ["escape"], said: "Leave the point where it was", run: () => painter.cancel() },
        ]
      : [
          { keys: ["["], said: "Smaller brush", run: () => painter.scale(1 / 1.15), held: true },
          { keys: ["]"], said: "Larger brush", run: () => painter.scale(1.15), held: true },
          { keys: ["enter"], said: "Close the polygon", run: () => painter.closeOutline() },
          { keys: ["backspace"], said: "Take its last corner back", run: () => (painter.outline.pop(), view.redraw()) },
          { keys: ["escape"], said: "Give up the stroke or polygon", run: () => painter.cancel() },
        ]),
    { keys: ["ctrl+z"], said: "Undo", run: () => painter.undo(), held: true },
    { keys: ["ctrl+shift+z", "ctrl+y"], said: "Redo", run: () => painter.redo(), held: true },
    { keys: ["delete"], said: "Take the label of this frame back", run: () => painter.takeBack() },
    { keys: ["arrowleft", "a"], said: "Frame before", run: () => go(now.wanted - 1), held: true },
    { keys: ["arrowright", "d"], said: "Next frame", run: () => go(now.wanted + 1), held: true },
    { keys: ["shift+arrowleft"], said: "Labelled frame before", run: () => toLabelled(-1) },
    { keys: ["shift+arrowright"], said: "Next labelled frame", run: () => toLabelled(1) },
    { keys: ["pageup"], said: "Ten frames back", run: () => go(now.wanted - 10), held: true },
    { keys: ["pagedown"], said: "Ten frames on", run: () => go(now.wanted + 10), held: true },
    { keys: ["home"], said: "First frame", run: () => go(first) },
    { keys: ["end"], said: "Last frame", run: () => go(end - 1) },
    { keys: ["space"], said: "Play, pause", run: play },
    { keys: ["c"], said: "Next frame to check", run: toCheck },
    { keys: ["p"], said: "Propagate everywhere, or stop", run: () => (page.state().job.running ? stop() : propagate({})) },
    { keys: ["shift+f"], said: "Propagate forwards from here", run: () => propagate({ first: now.wanted }) },
    { keys: ["shift+b"], said: "Propagate backwards from here", run: () => propagate({ last: now.wanted }) },
    { keys: [","], said: "Mark the first frame of a stretch", run: () => mark(0) },
    { keys: ["."], said: "Mark its last frame", run: () => mark(1) },
    { keys: ["shift+p"], said: "Propagate between the marks", run: between },
    { keys: ["n"], said: placer ? "Add a point" : "Add an object", run: addObject },
    ...[1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) => ({
      keys: [String(n)],
      said: `${placer ? "Point" : "Object"} ${n} of the list`,
      run: () => n <= objects.things.length && objects.choose(objects.things[n - 1].id),
    })),
    { keys: ["x"], said: `Hide the ${objects.noun}, or show it`, run: () => objects.toggle(objects.chosen, "hidden") },
    { keys: ["l"], said: `Lock the ${objects.noun}, or free it`, run: () => objects.toggle(objects.chosen, "locked") },
    { keys: ["o"], said: "Overlay, outlines, mask, picture", run: nextMode },
    { keys: ["v"], said: "Before the last correction, and after", run: () => attempt(before) },
    { keys: ["+", "="], said: "Zoom in", run: () => zoomBy(1.25), held: true },
    { keys: ["-"], said: "Zoom out", run: () => zoomBy(0.8), held: true },
    { keys: ["0"], said: "Show the whole frame", run: () => view.fit() },
    { keys: ["z"], said: "A pixel of the frame a pixel of the screen", run: () => zoomBy(1 / view.scale) },
    { keys: ["ctrl+e"], said: "Export", run: exporting },
    { keys: ["?", "f1"], said: "These shortcuts", run: helping },
  ];

  for (const [name, said, key] of tools) {
    const button = document.createElement("button");
    button.dataset.tool = name;
    button.append(icon(name));
    button.title = `${said} (${key.toUpperCase()})`;
    button.setAttribute("aria-label", said);
    button.addEventListener("click", () => choose(name));
    $("tools").append(button);
  }
  for (const form of page.state().forms) {
    const button = document.createElement("button");
    button.textContent = form;
    button.addEventListener("click", () => {
      downloads = $("download").checked;
      $("exports").close();
      void attempt(() => ask("POST", "/api/export", { form }));
    });
    $("forms").append(button);
  }
  showKeys($("key-list"), shortcuts, [...POINTERS, ...(placer ? POINT_POINTERS : MASK_POINTERS)]);
  $("kind").addEventListener("change", () => attempt(() => ask("PUT", "/api/kind", { kind: $("kind").value })));
  listenToKeys(shortcuts);
  const clicks = /** @type {Record<string, () => void>} */ ({
    first: () => toLabelled(-1),
    back: () => go(now.wanted - 1),
    play,
    next: () => go(now.wanted + 1),
    last: () => toLabelled(1),
    undo: () => painter.undo(),
    redo: () => painter.redo(),
    "take-back": () => painter.takeBack(),
    add: addObject,
    check: toCheck,
    stop,
    both: () => propagate({}),
    forwards: () => propagate({ first: now.wanted }),
    backwards: () => propagate({ last: now.wanted }),
    between,
    export: exporting,
    help: helping,
  });
  for (const [id, run] of Object.entries(clicks)) $(id).addEventListener("click", run);
  for (const id of ["first", "back", "play", "next", "last"]) $(id).append(icon(id));
  choose(placer ? "point" : "brush");
  return { exported };
}
