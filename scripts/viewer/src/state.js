// What is shown, as one flat object that the URL's fragment holds. The fragment never leaves the
// browser; whoever opens the same address on the same server sees the same picture.

export const VIEWS = ["planes", "all", "axial", "coronal", "sagittal", "render"];

export const DEFAULTS = Object.freeze({
  case: "", // name of the case
  view: "planes",
  image: "", // modality; empty takes the first
  second: "", // modality that is blended over it
  blend: 0.5,
  low: null, // window in the image's own numbers; null takes the one that suits it
  high: null,
  prediction: 0.5, // opacities of the layers
  reference: 0,
  errors: 0,
  probabilities: 0,
  balanced: 0,
  uniform: 0,
  class: 1, // number of the map that is drawn: of a class, or of a region
  threshold: 0.5,
  outline: false,
  cross: true,
  right: true, // radiological: the patient's right is at the left
  at: null, // crosshair, mm along R, A, S
  sort: "", // column of the list; empty keeps the files' order
  down: false,
});

const SHARES = ["blend", "prediction", "reference", "errors", "probabilities", "balanced",
  "uniform", "threshold"];

function readPlace(text) {
  const place = text.split(",").map(Number);
  return place.length === 3 && place.every(Number.isFinite) ? place : null;
}

/** Read a fragment; what is missing or makes no sense has its default. */
export function parseState(fragment) {
  const state = { ...DEFAULTS };
  for (const [key, text] of new URLSearchParams(fragment.replace(/^#/, ""))) {
    if (!Object.hasOwn(DEFAULTS, key)) continue;
    const number = Number(text);
    if (SHARES.includes(key)) {
      if (text !== "" && number >= 0 && number <= 1) state[key] = number;
    } else if (key === "at") state.at = readPlace(text);
    else if (key === "low" || key === "high") {
      if (text !== "" && Number.isFinite(number)) state[key] = number;
    } else if (key === "class") {
      if (Number.isInteger(number) && number >= 0) state.class = number;
    } else if (typeof DEFAULTS[key] === "boolean") state[key] = text === "1";
    else if (key !== "view" || VIEWS.includes(text)) state[key] = text;
  }
  return state;
}

/** Write what differs from the defaults as a fragment. */
export function formatState(state) {
  const written = new URLSearchParams();
  for (const [key, value] of Object.entries(state)) {
    if (value === null || value === DEFAULTS[key]) continue;
    if (typeof value === "boolean") written.set(key, value ? "1" : "0");
    else if (key === "at") written.set(key, value.map((mm) => mm.toFixed(2)).join(","));
    else written.set(key, typeof value === "number" ? String(+value.toPrecision(6)) : value);
  }
  return `#${written}`;
}
