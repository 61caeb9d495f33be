/** The page: what it knows, and how its parts hang together. */

import { ask, get, listen, page as myself, Refused } from "/static/api.js";
import { wire } from "/static/controls.js";
import { Loader } from "/static/loader.js";
import { Objects } from "/static/objects.js";
import { Painter } from "/static/painter.js";
import { Placer } from "/static/placer.js";
import { Saver } from "/static/saver.js";
import { Timeline, within } from "/static/timeline.js";
import { View } from "/static/view.js";

/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);

const RELOAD = 1500; // milliseconds between two looks at the confidence while frames are labelled

/** @param {any} state as the server tells it */
async function start(state) {
  const { width, height, fps } = state.video;
  const [first, end] = /** @type {[number, number]} */ (state.range);
  const view = new View($("stage"), width, height);
  const what = state.kind === "keypoints" ? "points" : "masks";
  let confidence = { first, values: /** @type {Record<string, number[]>} */ ({}), look: /** @type {number[]} */ ([]) };
  let loading = false;
  let follows = true; // the frame that is written: until a person goes elsewhere, or paints
  /** @type {[number, number] | null} */
  let marks = null;
  const now = {
    mask: { k: -1, ids: view.ids, points: new Map(), version: 0 },
    shown: -1,
    wanted: first,
    labelled: new Set(/** @type {number[]} */ (state.labelled)),
    reach,
    about,
    note,
    stay: () => {
      follows = false;
    },
  };
  const objects = new Objects($("objects"), what === "points" ? "point" : "object", {
    choose: () => (view.redraw(), about()),
    change: (id, what) => attempt(() => ask("PUT", `/api/objects/${id}`, what)),
    remove: (id) => {
      const text = `Delete ${objects.nameOf(id)} from all labelled frames?`;
      if (confirm(text)) void attempt(() => ask("DELETE", `/api/objects/${id}`));
    },
    looked: recolour,
  });
  const timeline = new Timeline($("timeline"), go);
  const saver = new Saver(tellSaved, unknown, width, what);
  const loader = new Loader(width, height, what, (found) => {
    saver.versions.set(found.k, found.version);
    saver.onTop(found);
  });
  const placer = what === "points" ? new Placer(now, view, objects, saver) : null;
  const painter = placer ?? new Painter(now, view, objects, saver);

  // --- frames ----------------------------------------------------------------------------------------------------------

  /** @param {import("./loader.js").Mask} found */
  function take(found) {
    if (found.k === now.mask.k && found !== now.mask) painter.carry(found.ids);
    if (placer) placer.earlier = null;
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

  /** A person goes to a frame, and stays there. @param {number} k */
  function go(k) {
    now.stay();
    move(k);
  }

  /** @param {number} k */
  function move(k) {
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
    let way = 1;
    while (now.shown !== now.wanted) {
      const k = now.wanted;
      try {
        const began = performance.now();
        const [bitmap, found] = await Promise.all([loader.picture(k), loader.mask(k)]);
        if (found.k !== now.mask.k) painter.cancel();
        view.picture = bitmap;
        take(found);
        way = k === now.shown - 1 ? -1 : 1;
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
    const next = now.shown + way; // the other one would make the server seek
    if (next >= first && next < end) void loader.picture(next).catch(() => {});
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
    const is = labelled
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
    const damaged = loader.damaged.has(k) ? " It is damaged and shows the picture beside it: better label another." : "";
    $("about").textContent = `Frame ${k} is ${is}.${damaged}${sure.length ? ` Confidence: ${sure.join(", ")}.` : ""}`;
    $("undo").disabled = !painter.past.length;
    $("redo").disabled = !painter.future.length;
    $("take-back").disabled = !labelled;
    $("kinds").hidden = !state.free || now.labelled.size > 0;
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
    const rate = job.rate ? ` · ${job.rate.toFixed(1)} a second` : "";
    const at = job.done && job.done < job.total ? `${job.done} of ${job.total} steps${rate}` : job.said || "starting";
    $("job").textContent = job.running ? at : job.error ? "" : job.said;
    if (job.error) trouble(job.error);
    follows ||= !job.running;
    const free = !painter.busy && !painter.stepping && !saver.waiting;
    if (job.running && follows && $("follow").checked && job.frame !== null && free) move(job.frame);
  }

  /** @param {any} next */
  function takeState(next) {
    const before = state;
    if (next.kind !== before.kind) return location.reload();
    state = next;
    now.labelled.clear();
    for (const k of next.labelled) now.labelled.add(k);
    for (const act of saver.acts) act.kind === "take-back" ? now.labelled.delete(act.k) : now.labelled.add(act.k);
    for (const k of loader.masks.keys()) {
      if (!saver.waits(k) && saver.versions.get(k) !== (next.versions[k] ?? next.first_version)) unknown(k);
    }
    takeObjects(next.objects);
    tellJob(next.job);
    about();
    if (before.job.running && !next.job.running && next.job.what === "export" && next.job.result) controls.exported();
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

  // --- beginning -------------------------------------------------------------------------------------------------------

  const controls = wire({
    now, view, painter, placer, objects, loader, first, end, go, note, attempt,
    follow: () => {
      follows = true;
    },
    state: () => state,
    look: () => confidence.look,
    marked: (what) => {
      marks = what;
      tellJob(state.job);
      redrawLine();
    },
    loading: () => loading,
  });
  painter.resized = () => {
    $("brush-size").value = String(painter.size);
    $("brush-said").textContent = String(painter.size);
  };
  $("index").addEventListener("change", () => go($("index").value === "" ? now.wanted : Number($("index").value)));
  $("index").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => event.key === "Enter" && $("pen").focus());
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
  $("kind").value = state.kind;
  for (const one of document.querySelectorAll("[data-of]")) /** @type {HTMLElement} */ (one).hidden = one.getAttribute("data-of") !== what;
  if (placer) {
    $("objects-title").textContent = "Points";
    $("add").textContent = "+ Add point";
    $("add").title = "Add a point (N)";
    $("pen").setAttribute("aria-label", "The frame and its points; place them with the pointer");
  }
  painter.resize(painter.size);
  takeState(state);
  move(now.labelled.size ? Math.min(...now.labelled) : first);
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
