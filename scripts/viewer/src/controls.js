// The panel at the side: modalities, window, layers, what lies under the crosshair.
import { byId, element, swatch } from "./elements.js";

const OPENED = { prediction: 0.5, reference: 0.5, errors: 0.8, probabilities: 0.7, balanced: 1,
  uniform: 1 };
const TITLES = { prediction: "Prediction", reference: "Reference", errors: "Differences",
  probabilities: "Probabilities", balanced: "Balanced pixels", uniform: "Uniform pixels" };

function options(select, values, chosen) {
  select.replaceChildren(...values.map(([value, text]) => element("option",
    { value, selected: value === chosen }, text)));
  select.value = chosen;
}

export class Controls {
  /**
   * @param {object} study what /api/study gave
   * @param {(object) => void} change takes the parts of the state that are to be others
   */
  constructor(study, change) {
    this.study = study;
    this.change = change;
    const number = (id, key) => byId(id).addEventListener("input", (event) => {
      if (event.target.value !== "") change({ [key]: Number(event.target.value) });
    });
    byId("image").addEventListener("change", (event) => change({
      image: event.target.value, low: null, high: null }));
    byId("second").addEventListener("change", (event) => change({ second: event.target.value }));
    byId("class").addEventListener("change", (event) => change({
      class: Number(event.target.value) }));
    for (const id of ["blend", "threshold"]) number(id, id);
    for (const id of ["low", "high"]) {
      byId(id).addEventListener("change", (event) => {
        const [low, high] = ["low", "high"].map((each) => Number(byId(each).value));
        if (event.target.value !== "" && high > low) change({ low, high });
      });
    }
    byId("suit").addEventListener("click", () => change({ low: null, high: null }));
    byId("outline").addEventListener("change", (event) => change({
      outline: event.target.checked }));
    this.layers = new Map();
    for (const kind of Object.keys(TITLES)) {
      const shown = element("input", { type: "checkbox", id: `show-${kind}`,
        onchange: () => this.toggle(kind) });
      const opacity = element("input", { type: "range", min: "0", max: "1", step: "0.05",
        "aria-label": `Opacity of ${TITLES[kind].toLowerCase()}`,
        oninput: (event) => change({ [kind]: Number(event.target.value) }) });
      const row = element("div", { class: "layer" }, shown,
        element("label", { for: `show-${kind}` }, TITLES[kind]), opacity);
      this.layers.set(kind, { row, shown, opacity });
      byId("layers").append(row);
    }
    byId("legend").append(...this.legend());
  }

  /** Follow another study. */
  take(study) {
    this.study = study;
    byId("legend").replaceChildren(...this.legend());
  }

  legend() {
    const entry = ({ colour, name }) => element("li", {}, swatch(colour), name);
    const classes = this.study.labels.filter((each) => each.colour);
    const drawn = this.study.samples?.slice(0, 1) ?? [];
    return [...classes.map(entry), ...drawn.map(entry), ...(this.study.cases.some((one) => one.layers.some(
      (layer) => layer.kind === "errors")) ? this.study.errors.map(entry) : [])];
  }

  /** Switch a layer between unseen and the opacity that it had, or a usual one. */
  toggle(kind) {
    const now = this.state[kind];
    if (now > 0) this.last = { ...this.last, [kind]: now };
    this.change({ [kind]: now > 0 ? 0 : this.last?.[kind] ?? OPENED[kind] });
  }

  /** Follow a state. */
  show(one, state) {
    this.state = state;
    const has = new Set(one?.layers.map((layer) => layer.kind));
    const images = one?.layers.filter((layer) => layer.kind === "image")
      .map((layer) => layer.title) ?? [];
    const base = images.includes(state.image) ? state.image : images[0] ?? "";
    options(byId("image"), images.map((title) => [title, title]), base);
    options(byId("second"), [["", "none"], ...images.filter((title) => title !== base)
      .map((title) => [title, title])], images.includes(state.second) && state.second !== base
      ? state.second : "");
    byId("blend").disabled = byId("second").value === "";
    byId("blend").value = state.blend;
    byId("outline").checked = state.outline;
    for (const [kind, { row, shown, opacity }] of this.layers) {
      row.hidden = !has.has(kind);
      shown.checked = state[kind] > 0;
      opacity.value = state[kind];
    }
    byId("heat").hidden = !has.has("probabilities");
    options(byId("class"), this.study.maps.map((name, place) => [String(place), name]),
      String(Math.min(state.class, this.study.maps.length - 1)));
    byId("threshold").value = state.threshold;
    byId("threshold-value").textContent = state.threshold.toFixed(2);
    const warnings = one?.warnings ?? [];
    byId("warnings").replaceChildren(...warnings.map((text) => element("li", {}, text)));
    byId("warned").hidden = !warnings.length;
  }

  window(found) {
    if (!found) return;
    const shown = (value) => String(+value.toPrecision(4));
    if (document.activeElement !== byId("low")) byId("low").value = shown(found.low);
    if (document.activeElement !== byId("high")) byId("high").value = shown(found.high);
    byId("range").textContent = `image: ${shown(found.least)} to ${shown(found.most)}`;
  }

  /** Say what lies under the crosshair. */
  tell(one, { mm, values }) {
    const side = (value, above, below) => `${value >= 0 ? above : below}\u2009${
      Math.abs(value).toFixed(1)}`;
    byId("place").textContent = `${side(mm[0], "R", "L")}  ${side(mm[1], "A", "P")}  ${
      side(mm[2], "S", "I")} mm`;
    const rows = [];
    const named = (value, entries) => (value === null ? "outside"
      : entries.find((each) => each.value === value)?.name
        ?? (value === 0 ? "none" : `label ${value}`));
    for (const layer of one.layers) {
      const value = values[layer.key];
      if (value === undefined) continue;
      if (layer.kind === "image") {
        rows.push([layer.title, value === null ? "outside" : String(+value.toPrecision(4))]);
      } else if (layer.kind === "probabilities") {
        value.forEach((each, place) => rows.push([
          `p(${this.study.maps[place] ?? place})`, each === null ? "" : each.toFixed(2)]));
      } else {
        rows.push([TITLES[layer.kind], named(value, { errors: this.study.errors,
          balanced: this.study.samples, uniform: this.study.samples }[layer.kind]
          ?? this.study.labels)]);
      }
    }
    byId("under").replaceChildren(...rows.flatMap(([name, text]) => [
      element("dt", {}, name), element("dd", {}, text)]));
  }
}
