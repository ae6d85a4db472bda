// What each key does; the help is written from the same table.

/** Keys, what they do, and the name of the act. */
export const KEYS = [
  [["n", "p"], "next and previous case of the list", { n: "next", p: "previous" }],
  [["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"], "move the crosshair by a voxel", {
    ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" }],
  [["PageUp", "PageDown"], "slice above and below", { PageUp: "above", PageDown: "below" }],
  [["1", "2", "3", "4", "5", "6"],
    "three planes; planes and 3-D; axial; coronal; sagittal; 3-D", {
      1: "planes", 2: "all", 3: "axial", 4: "coronal", 5: "sagittal", 6: "render" }],
  [["m"], "next modality", { m: "modality" }],
  [["s"], "segmentation (prediction) on and off", { s: "prediction" }],
  [["r"], "reference on and off", { r: "reference" }],
  [["d"], "differences on and off", { d: "errors" }],
  [["h"], "heat map of probabilities on and off", { h: "probabilities" }],
  [["b", "u"], "pixels that balanced, and that uniform sampling draws, on and off", {
    b: "balanced", u: "uniform" }],
  [["[", "]"], "threshold of the heat map down and up", { "[": "lower", "]": "higher" }],
  [["o"], "firm outlines of labels on and off", { o: "outline" }],
  [["x"], "crosshair on and off", { x: "cross" }],
  [["f"], "flip: the patient's right at the left or at the right", { f: "flip" }],
  [["w"], "window that suits the image", { w: "window" }],
  [["c"], "save a picture", { c: "picture" }],
  [["?"], "this help", { "?": "help" }],
];

const ACTS = Object.assign({}, ...KEYS.map(([, , acts]) => acts));
const SHORT = { ArrowLeft: "\u2190", ArrowRight: "\u2192", ArrowUp: "\u2191", ArrowDown: "\u2193",
  PageUp: "Page up", PageDown: "Page down" };

export const nameOfKey = (key) => SHORT[key] ?? key;

/** Call `act` with the name of what a key stands for; fields that take text keep their keys. */
export function listenToKeys(canvas, act) {
  document.addEventListener("keydown", (event) => {
    if (event.target === canvas) event.stopPropagation(); // NiiVue has keys of its own
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    const field = event.target.closest?.("input, select, textarea");
    if (field && (event.key.startsWith("Arrow") || event.key.startsWith("Page")
      || field.type === "number" || field.type === "search")) return;
    const name = ACTS[event.key];
    if (!name) return;
    event.preventDefault();
    act(name);
  }, true);
}
