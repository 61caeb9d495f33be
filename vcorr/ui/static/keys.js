/** Keyboard shortcuts: one table, which also is what `?` shows. */

/** @typedef {{keys: string[], said: string, run: (event: KeyboardEvent) => void, held?: boolean}} Shortcut a key is "ctrl+shift+z" */

/** The name of the key of an event. @param {KeyboardEvent} event */
export function nameOf(event) {
  const key = event.key === " " ? "space" : event.key.toLowerCase();
  const shift = event.shiftKey && (key.length > 1 || /[a-z]/.test(key));
  return `${event.ctrlKey || event.metaKey ? "ctrl+" : ""}${event.altKey ? "alt+" : ""}${shift ? "shift+" : ""}${key}`;
}

/** @param {Shortcut[]} shortcuts */
export function listenToKeys(shortcuts) {
  const table = new Map(shortcuts.flatMap((one) => one.keys.map((key) => /** @type {const} */ ([key, one]))));
  document.addEventListener("keydown", (event) => {
    const target = /** @type {HTMLElement} */ (event.target);
    if (document.querySelector("dialog[open]")) return;
    if (target.matches("input[type=text],input[type=number],select") && event.key !== "Escape") return;
    const name = nameOf(event);
    if ((name === "space" || name === "enter") && target.matches("button,input")) return;
    if (/^arrow|^home$|^end$/.test(name) && target.matches("input[type=range]")) return;
    const found = table.get(name);
    if (!found || (event.repeat && !found.held)) return;
    event.preventDefault();
    found.run(event);
  });
}

const SHOWN = /** @type {Record<string, string>} */ ({
  arrowleft: "←", arrowright: "→", arrowup: "↑", arrowdown: "↓", space: "Space", escape: "Esc", enter: "Enter",
  delete: "Delete", backspace: "Backspace", home: "Home", end: "End", pageup: "PgUp", pagedown: "PgDn", ctrl: "Ctrl", shift: "Shift", alt: "Alt",
});

/** @param {HTMLElement} list @param {Shortcut[]} shortcuts @param {[string, string][]} pointers what the pointer does */
export function showKeys(list, shortcuts, pointers) {
  list.replaceChildren();
  const numbers = shortcuts.filter((one) => /^[2-8]$/.test(one.keys[0])); // 1 and 9 say it
  const rows = [
    ...shortcuts.filter((one) => !numbers.includes(one)).map((one) => /** @type {[string, string]} */ ([one.keys.join(" or "), one.said])),
    ...pointers,
  ];
  for (const [keys, said] of rows) {
    const row = document.createElement("div");
    const what = document.createElement("span");
    what.textContent = said;
    const names = document.createElement("kbd");
    names.textContent = keys.replace(/[a-z]+(?![a-z])/g, (word) => SHOWN[word] ?? (word.length === 1 ? word.toUpperCase() : word));
    row.append(what, names);
    list.append(row);
  }
}
