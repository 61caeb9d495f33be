/** The page: what it knows, and how its parts hang together. */

import { ask, get, listen, page as myself, Refused } from "/static/api.js";
import { icon } from "/static/icons.js";
import { listenToKeys, showKeys } from "/static/keys.js";
import { Loader } from "/static/loader.js";
import { Objects } from "/static/objects.js";
import { Painter } from "/static/painter.js";
import { Saver } from "/static/saver.js";
import { Timeline, within } from "/static/timeline.js";
import { View } from "/static/view.js";

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

const TOOLS = /** @type {[string, string, string][]} */ ([
  ["brush", "Brush", "b"],
  ["eraser", "Eraser", "e"],
  ["polygon", "Polygon", "g"],
  ["fill", "Fill", "k"],
  ["pick", "Pick the object under the pointer", "i"],
  ["pan", "Move the picture", "h"],
]);
const RELOAD = 1500; // milliseconds between two looks at the confidence while frames are labelled

/** @param {any} state as the server tells it */
async function start(state) {
  const { width, height, fps } = state.video;
  const [first, end] = /** @type {[number, number]} */ (state.range);
  const view = new View($("stage"), width, height);
  let confidence = { first, values: /** @type {Record<string, number[]>} */ ({}), look: /** @type {number[]} */ ([]) };
  let loading = false;
  let downloads = false;
  /** @type {number | undefined} */
  let playing;
  /** @type {[number, number] | null} */
  let marks = null;
  const now = {
    mask: { k: -1, ids: view.ids, version: 0 },
    shown: -1,
    wanted: first,
    labelled: new Set(/** @type {number[]} */ (state.labelled)),
    reach,
    about,
    note,
  };
  const objects = new Objects($("objects"), {
    choose: about,
    change: (id, what) => attempt(() => ask("PUT", `/api/objects/${id}`, what)),
    remove: (id) => {
      const text = `Delete ${objects.nameOf(id)} from all labelled frames?`;
      if (confirm(text)) void attempt(() => ask("DELETE", `/api/objects/${id}`));
    },
    looked: recolour,
  });
  const timeline = new Timeline($("timeline"), go);
  const saver = new Saver(tellSaved, unknown, width);
  const loader = new Loader(width, height, (found) => {
    saver.versions.set(found.k, found.version);
    saver.onTop(found.k, found.ids);
  });
  const painter = new Painter(now, view, objects, saver);

  // --- frames ----------------------------------------------------------------------------------------------------------

  /** @param {import("./loader.js").Mask} found */
  function take(found) {
    if (found.k === now.mask.k && found !== now.mask) painter.carry(found.ids);
    now.mask = found;
    view.ids = found.ids;
    view.redraw();
  }

  /** The mask of a frame may be another one by now. @param {number} k */
  function unknown(k) {
    loader.forget(k);
    if (k === now.shown) void reload();
  }

  async function reload() {
    const k = now.shown;
    const found = await loader.mask(k).catch(() => null);
    if (found && k === now.shown) take(found);
    about();
  }

  /** @param {number} k */
  function go(k) {
    loader.near = now.wanted = Math.min(end - 1, Math.max(first, Math.round(k) || 0));
    $("index").value = String(now.wanted);
    redrawLine();
    if (!loading) void catchUp();
  }

  /** Show a frame. @param {number} k @returns {Promise<boolean>} whether it is shown */
  async function reach(k) {
    if (now.wanted !== k) go(k);
    while (now.shown !== k && now.wanted === k) await new Promise((resolve) => setTimeout(resolve, 15));
    return now.shown === k;
  }

  async function catchUp() {
    loading = true;
    while (now.shown !== now.wanted) {
      const k = now.wanted;
      try {
        const began = performance.now();
        const [bitmap, found] = await Promise.all([loader.picture(k), loader.mask(k)]);
        if (found.k !== now.mask.k) painter.cancel();
        view.picture = bitmap;
        take(found);
        now.shown = k;
        document.body.dataset.shown = String(k);
        document.body.dataset.took = String(Math.round(performance.now() - began));
        about();
      } catch (error) {
        if (error instanceof Refused) {
          trouble(error.message);
          if (now.wanted === k) break;
        } else await new Promise((resolve) => setTimeout(resolve, 500));
      }
    }
    loading = false;
    if (!playing) for (const k of [now.shown + 1, now.shown - 1]) if (k >= first && k < end) void loader.picture(k).catch(() => {});
  }

  // --- what the page shows ---------------------------------------------------------------------------------------------

  function recolour() {
    view.colour(objects.things, objects.hidden);
    redrawLine();
  }

  function redrawLine() {
    const colours = new Map(objects.things.map((t) => /** @type {const} */ ([t.id, t.colour])));
    const { computed, stale, cuts } = state;
    timeline.show({ first, end, at: now.wanted, labelled: now.labelled, computed, stale, cuts, marks, confidence, colours });
  }

  /** Tell of the frame that is shown. */
  function about() {
    const k = now.shown;
    const labelled = now.labelled.has(k);
    const what = labelled
      ? "labelled"
      : within(state.stale, k)
        ? "computed from earlier labels: propagate to redo it"
        : within(state.computed, k)
          ? "computed"
          : "not labelled yet";
    const sure = Object.entries(confidence.values)
      .map(([id, values]) => /** @type {const} */ ([objects.nameOf(Number(id)), values[k - confidence.first]]))
      .filter(([, value]) => value >= 0 && !labelled)
      .map(([name, value]) => `${name} ${value} %`);
    $("about").textContent = `Frame ${k} is ${what}.${sure.length ? ` Confidence: ${sure.join(", ")}.` : ""}`;
    $("undo").disabled = !painter.past.length;
    $("redo").disabled = !painter.future.length;
    $("take-back").disabled = !labelled;
    redrawLine();
  }

  /** @param {number} waiting strokes @param {string} why they wait, if it takes long */
  function tellSaved(waiting, why) {
    $("saved").textContent = why && waiting ? `${waiting} not saved: ${why}` : waiting ? "saving" : "saved";
    $("saved").classList.toggle("waits", waiting > 0);
    $("saved").classList.toggle("lost", Boolean(why));
    if (why && !waiting) trouble(why);
  }

  /** @param {any} job */
  function tellJob(job) {
    state.job = job;
    for (const id of ["backwards", "both", "forwards"]) $(id).hidden = job.running;
    $("between").hidden = job.running || !marks;
    $("stop").hidden = !job.running;
    $("export").disabled = job.running;
    const share = job.running && job.total ? Math.round((100 * job.done) / job.total) : 0;
    $("done").style.width = `${share}%`;
    $("bar").ariaValueNow = String(share);
    const rate = job.rate ? ` · ${job.rate.toFixed(1)} frames/s` : "";
    const at = job.done && job.done < job.total ? `${job.done} of ${job.total} steps${rate}` : job.said || "starting";
    $("job").textContent = job.running ? at : job.error ? "" : job.said;
    if (job.error) trouble(job.error);
    if (job.running && $("follow").checked && job.frame !== null && !painter.busy && !saver.waiting) go(job.frame);
  }

  /** @param {any} next */
  function takeState(next) {
    const before = state;
    state = next;
    now.labelled.clear();
    for (const k of next.labelled) now.labelled.add(k);
    for (const act of saver.acts) act.kind === "paint" ? now.labelled.add(act.k) : now.labelled.delete(act.k);
    for (const k of loader.masks.keys()) {
      if (!saver.waits(k) && saver.versions.get(k) !== (next.versions[k] ?? next.first_version)) unknown(k);
    }
    takeObjects(next.objects);
    tellJob(next.job);
    about();
    if (before.job.running && !next.job.running && next.job.what === "export" && next.job.result && downloads) void download();
  }

  /** @param {import("./view.js").Thing[]} things */
  function takeObjects(things) {
    objects.show(things.length ? things : [{ id: 1, name: "", colour: "#ff0000" }]);
    recolour();
  }

  async function loadConfidence() {
    confidence = (await get("/api/confidence").catch(() => null)) ?? confidence;
    about();
  }

  /** @type {number | undefined} */
  let later;

  /** @param {string} event @param {any} data */
  function told(event, data) {
    if (event === "state") takeState(data);
    else if (event === "job") tellJob(data);
    else if (event === "confidence") void loadConfidence();
    else if (event === "mask") {
      const k = data.frame;
      if (data.stale) state.stale = data.stale;
      if (data.objects) takeObjects((state.objects = data.objects));
      if (data.by !== myself) {
        if (data.by) data.labelled ? now.labelled.add(k) : now.labelled.delete(k);
        else if (!within(state.computed, k)) state.computed.push([k, k]);
        if (saver.versions.get(k) !== data.version) unknown(k);
        later ??= window.setTimeout(() => ((later = undefined), void loadConfidence()), RELOAD);
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
  const between = () => marks && propagate({ first: marks[0], last: marks[1] });
  const stop = () => void attempt(() => ask("POST", "/api/stop", {}));

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
    const look = confidence.look.filter((k) => !now.labelled.has(k));
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
        if (!loading) go(k);
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
    tellJob(state.job);
    redrawLine();
  }

  function addObject() {
    const id = state.objects.length ? objects.free : 1;
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

  const exporting = () => $("exports").showModal();
  const helping = () => $("keys").showModal();
  /** @type {import("./keys.js").Shortcut[]} */
  const shortcuts = [
    ...TOOLS.map(([name, said, key]) => ({ keys: [key], said, run: () => choose(name) })),
    { keys: ["["], said: "Smaller brush", run: () => painter.scale(1 / 1.15), held: true },
    { keys: ["]"], said: "Larger brush", run: () => painter.scale(1.15), held: true },
    { keys: ["enter"], said: "Close the polygon", run: () => painter.closeOutline() },
    { keys: ["backspace"], said: "Take its last corner back", run: () => (painter.outline.pop(), view.redraw()) },
    { keys: ["escape"], said: "Give up the stroke or polygon", run: () => painter.cancel() },
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
    { keys: ["p"], said: "Propagate everywhere, or stop", run: () => (state.job.running ? stop() : propagate({})) },
    { keys: ["shift+f"], said: "Propagate forwards from here", run: () => propagate({ first: now.wanted }) },
    { keys: ["shift+b"], said: "Propagate backwards from here", run: () => propagate({ last: now.wanted }) },
    { keys: [","], said: "Mark the first frame of a stretch", run: () => mark(0) },
    { keys: ["."], said: "Mark its last frame", run: () => mark(1) },
    { keys: ["shift+p"], said: "Propagate between the marks", run: between },
    { keys: ["n"], said: "Add an object", run: addObject },
    ...[1, 2, 3, 4, 5, 6, 7, 8, 9].map((n) => ({
      keys: [String(n)],
      said: `Object ${n} of the list`,
      run: () => n <= objects.things.length && objects.choose(objects.things[n - 1].id),
    })),
    { keys: ["x"], said: "Hide the object, or show it", run: () => objects.toggle(objects.chosen, "hidden") },
    { keys: ["l"], said: "Lock the object, or free it", run: () => objects.toggle(objects.chosen, "locked") },
    { keys: ["o"], said: "Overlay, outlines, mask, picture", run: nextMode },
    { keys: ["+", "="], said: "Zoom in", run: () => zoomBy(1.25), held: true },
    { keys: ["-"], said: "Zoom out", run: () => zoomBy(0.8), held: true },
    { keys: ["0"], said: "Show the whole frame", run: () => view.fit() },
    { keys: ["z"], said: "A pixel of the frame a pixel of the screen", run: () => zoomBy(1 / view.scale) },
    { keys: ["ctrl+e"], said: "Export", run: exporting },
    { keys: ["?", "f1"], said: "These shortcuts", run: helping },
  ];

  // --- beginning -------------------------------------------------------------------------------------------------------

  for (const [name, said, key] of TOOLS) {
    const button = document.createElement("button");
    button.dataset.tool = name;
    button.append(icon(name));
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
  showKeys($("key-list"), shortcuts);
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
  painter.resized = () => {
    $("brush-size").value = String(painter.size);
    $("brush-said").textContent = String(painter.size);
  };
  $("index").addEventListener("change", () => go(Number($("index").value)));
  $("brush-size").addEventListener("input", () => painter.resize(Number($("brush-size").value)));
  $("opacity").addEventListener("input", () => {
    view.opacity = Number($("opacity").value) / 100;
    recolour();
  });
  $("mode").addEventListener("change", () => {
    view.mode = $("mode").value;
    recolour();
  });
  window.addEventListener("beforeunload", (event) => saver.waiting && event.preventDefault());
  $("name").textContent = document.title = state.video.name;
  $("place").textContent = state.out;
  $("export-folder").textContent = `${state.out}/export`;
  $("index").min = String(first);
  $("index").max = String(end - 1);
  $("of").textContent = first ? `of ${first} to ${end - 1}` : `of ${end - 1}`;
  painter.resize(painter.size);
  choose("brush");
  takeState(state);
  go(now.labelled.size ? Math.min(...now.labelled) : first);
  void loadConfidence();
  return { told, takeState, saver, loader, view, painter, objects, now, state: () => state };
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
/** @type {[string, any][]} told before the page was ready */
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
