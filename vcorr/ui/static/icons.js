/** Signs of the buttons, 16 x 16, drawn in the colour of the text. */

const LINES = /** @type {Record<string, string>} */ ({
  brush: "M13.5 2.5 7 9M5 10.5c-1.5 0-2.5 1-2.5 3 1.8.3 4.3 0 4.3-2A1.8 1.8 0 0 0 5 10.5Z",
  eraser: "M6 13h7M9.5 3.5l3.5 3.5-6 6H5L2.5 10.5ZM5.8 7.2l3.5 3.5",
  polygon: "M3 6 9 2.5l4.5 5L10 13.5 4 12ZM3 6l0 0",
  fill: "M7 2.5 2.5 8 7 12.5 12 8ZM7 2.5 5.5 1M13.5 10.5c1 1.4 1 3 0 3s-1-1.6 0-3Z",
  magic: "M3 13 9.5 6.5M11 2v3M9.5 3.5h3M13.5 7v2M12.5 8h2M6 2.5v2M5 3.5h2",
  background: "M3 13 9.5 6.5M10 4h4",
  point: "M8 5.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5ZM8 1v2.5M8 12.5V15M1 8h2.5M12.5 8H15",
  pick: "M8 1.5v4M8 10.5v4M1.5 8h4M10.5 8h4M8 8h0",
  pan: "M8 2v12M2 8h12M8 2 6.5 3.5M8 2l1.5 1.5M8 14l-1.5-1.5M8 14l1.5-1.5M2 8l1.5-1.5M2 8l1.5 1.5M14 8l-1.5-1.5M14 8l-1.5 1.5",
  shown: "M1.5 8C4 3.5 12 3.5 14.5 8 12 12.5 4 12.5 1.5 8ZM8 6.2a1.8 1.8 0 1 0 0 3.6 1.8 1.8 0 0 0 0-3.6Z",
  hidden: "M1.5 8C4 3.5 12 3.5 14.5 8 12 12.5 4 12.5 1.5 8ZM3 13.5 13 2.5",
  free: "M3.5 7.5h9v6h-9ZM5.5 7.5V5a2.5 2.5 0 0 1 4.8-1",
  locked: "M3.5 7.5h9v6h-9ZM5.5 7.5V5a2.5 2.5 0 0 1 5 0v2.5",
  remove: "M4 4l8 8M12 4l-8 8",
  first: "M4 3v10M12 3 6 8l6 5Z",
  back: "M11 3 5 8l6 5Z",
  play: "M5 2.5 13 8l-8 5.5Z",
  pause: "M5.5 3v10M10.5 3v10",
  next: "M5 3l6 5-6 5Z",
  last: "M12 3v10M4 3l6 5-6 5Z",
});

/** @param {string} name */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", LINES[name]);
  svg.append(path);
  return svg;
}
