// Viewers of a report: cases that lie in the page itself, which needs no server.
import { element, swatch } from "./elements.js";
import { unpacked } from "./files.js";
import { Scene } from "./scene.js";
import { DEFAULTS } from "./state.js";

const VIEWS = { planes: "Planes", axial: "Axial", coronal: "Coronal", sagittal: "Sagittal",
  render: "3-D" };
const LAYERS = { prediction: "Prediction", reference: "Reference", errors: "Differences" };
const STEPS = { ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 1, 0],
  ArrowDown: [0, -1, 0], PageUp: [0, 0, 1], PageDown: [0, 0, -1] };

class Embedded {
  constructor(place, { name, layers, labels, errors }) {
    this.place = place;
    this.one = { name, layers };
    this.state = { ...DEFAULTS };
    this.study = { labels, errors, cases: [this.one],
      read: (_, { data }) => unpacked(new Blob([Uint8Array.from(atob(data),
        (letter) => letter.charCodeAt(0))])) };
    this.scene = new Scene(this.study, {
      moved: (found) => this.tell(found),
      windowed: (low, high) => Object.assign(this.state, { low, high }),
      busy: (text) => this.say(text),
      failed: (text) => this.say(text),
    }, { scrollRequiresFocus: true });
  }

  say(text) {
    this.place.querySelector("[role=status]").textContent = text;
  }

  async begin() {
    const canvas = element("canvas", { tabindex: "0", role: "application",
      "aria-label": `Slices of ${this.one.name}; arrows, Page up and Page down move the crosshair`,
    });
    this.buttons = Object.entries(VIEWS).map(([view, title]) => element("button", {
      type: "button", "data-view": view, onclick: () => this.change({ view }) }, title));
    const boxes = Object.entries(LAYERS).map(([kind, title]) => element("label", {},
      element("input", { type: "checkbox", "data-layer": kind, checked: this.state[kind] > 0,
        onchange: (event) => this.change({ [kind]: event.target.checked ? 0.5 : 0 }) }),
      ` ${title}`));
    this.under = element("p", { "aria-live": "polite" });
    const named = [...this.study.labels, ...this.study.errors].filter((each) => each.colour);
    this.place.prepend(
      element("div", { class: "bar" }, ...this.buttons, ...boxes),
      element("div", { class: "stage" }, canvas), this.under,
      element("ul", { "aria-label": "Colours" }, ...named.map(({ colour, name }) => element("li",
        {}, swatch(colour), name))));
    canvas.addEventListener("keydown", (event) => {
      event.stopPropagation(); // NiiVue has keys of its own
      const step = STEPS[event.key];
      if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.scene.step(...step);
    }, true);
    await this.scene.attach(canvas);
    await this.change({});
  }

  async change(parts) {
    Object.assign(this.state, parts);
    for (const button of this.buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.view === this.state.view));
    }
    if (await this.scene.show(0, this.state)) {
      this.place.dataset.drawn = String(Number(this.place.dataset.drawn ?? 0) + 1);
    }
  }

  tell({ mm, values }) {
    const side = (value, above, below) => `${value >= 0 ? above : below} ${
      Math.abs(value).toFixed(1)}`;
    const name = (value, entries) => entries.find((each) => each.value === value)?.name ?? "none";
    this.state.at = mm;
    this.under.textContent = [
      `${side(mm[0], "R", "L")}  ${side(mm[1], "A", "P")}  ${side(mm[2], "S", "I")} mm`,
      ...["reference", "prediction"].map((key) => `${key}: ${name(values[key],
        this.study.labels)}`)].join("; ");
  }
}

/** A viewer is made when its part of the page is opened: each takes memory and time. */
export function startEmbedded() {
  for (const part of document.querySelectorAll("details[data-case]")) {
    part.addEventListener("toggle", () => {
      const study = JSON.parse(part.querySelector("script").textContent);
      const viewer = new Embedded(part.querySelector(".viewer"), study);
      viewer.begin().catch((error) => viewer.say(`This case cannot be shown: ${error.message}`));
    }, { once: true });
  }
}
