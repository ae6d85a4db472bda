// A page: the picture and its panel, every change of which goes through one state.
import { Controls } from "./controls.js";
import { byId, element } from "./elements.js";
import { KEYS, listenToKeys, nameOfKey } from "./keys.js";
import { Scene } from "./scene.js";
import { VIEWS, formatState, parseState } from "./state.js";

const VIEW_TITLES = { planes: "Planes", all: "Planes + 3-D", axial: "Axial", coronal: "Coronal",
  sagittal: "Sagittal", render: "3-D" };
/** Layers that a key switches. */
const LAYERS = ["prediction", "reference", "errors", "probabilities", "balanced", "uniform"];

export class Page {
  /**
   * @param {object} study title, labels, errors, maps, regions, cases with their layers, and `read`,
   *   which gives the bytes of a NIfTI file by the number of a case and its layer
   * @param {(Page) => object} listOf makes the list of cases, as CaseList
   */
  constructor(study, listOf) {
    this.study = study;
    this.state = this.read();
    this.list = listOf(this);
    this.controls = new Controls(study, (parts) => this.change(parts));
    this.scene = new Scene(study, {
      moved: (found) => this.moved(found),
      windowed: (low, high) => {
        Object.assign(this.state, { low, high });
        this.controls.window(this.scene.window());
        this.keep();
      },
      busy: (text) => this.say(text),
      failed: (text) => this.fail(text),
    });
    for (const view of VIEWS) {
      byId("views").append(element("button", { type: "button", "data-view": view,
        onclick: () => this.change({ view }) }, VIEW_TITLES[view]));
    }
    byId("flip").addEventListener("click", () => this.act("flip"));
    byId("cross").addEventListener("click", () => this.act("cross"));
    byId("picture").addEventListener("click", () => this.act("picture"));
    byId("help-button").addEventListener("click", () => this.act("help"));
    byId("help-close").addEventListener("click", () => byId("help").close());
    byId("keys").append(...KEYS.flatMap(([keys, what]) => [
      element("dt", {}, ...keys.map((key) => element("kbd", {}, nameOfKey(key)))),
      element("dd", {}, what)]));
    listenToKeys(byId("canvas"), (name) => this.act(name));
    window.addEventListener("hashchange", () => {
      if (location.hash !== formatState(this.state)) {
        this.state = this.read();
        this.follow();
      }
    });
  }

  /** The state that the address holds; where nothing is predicted, the reference is seen. */
  read() {
    const asked = /[#&]reference=/.test(location.hash);
    const predicted = this.study.cases.some((one) => one.layers.some(
      (layer) => layer.kind === "prediction"));
    return { ...parseState(location.hash), ...(asked || predicted ? {} : { reference: 0.5 }) };
  }

  get number() {
    const named = this.study.cases.findIndex((one) => one.name === this.state.case);
    if (named >= 0) return named;
    const seen = this.list.shown.find((one) => one.layers.length) ?? this.list.shown[0];
    return seen ? seen.number : -1;
  }

  async begin() {
    await this.scene.attach(byId("canvas"));
    this.list.sort(this.state.sort, this.state.down);
    await this.follow();
  }

  /** Show another study in the place of the one before. */
  async replace(study, list) {
    Object.assign(this, { study, list });
    this.controls.take(study);
    this.scene.take(study);
    Object.assign(this.state, { case: "", at: null, low: null, high: null });
    await this.follow();
  }

  open(number) {
    const { name, patient } = this.study.cases[number];
    if (name === this.state.case) return;
    // Another segmentation of the same patient is looked at where the one before was.
    const same = patient && patient === this.study.cases[this.number]?.patient;
    this.change(same ? { case: name } : { case: name, at: null, low: null, high: null });
  }

  change(parts) {
    const sorted = "sort" in parts;
    Object.assign(this.state, parts);
    if (sorted) {
      this.list.sort(this.state.sort, this.state.down);
      this.keep();
      return;
    }
    // What moves a slider faster than it can be drawn is drawn once.
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.follow();
    });
  }

  /** Draw the state, and keep it in the address. */
  async follow() {
    const { state, number } = this;
    this.error = "";
    for (const button of byId("views").children) {
      button.setAttribute("aria-pressed", String(button.dataset.view === state.view));
    }
    byId("flip").setAttribute("aria-pressed", String(state.right));
    byId("flip").textContent = state.right ? "R | L" : "L | R";
    byId("cross").setAttribute("aria-pressed", String(state.cross));
    document.body.dataset.ready = "0";
    byId("canvas").hidden = number < 0;
    if (number < 0) {
      byId("shown").textContent = "";
      this.controls.show(undefined, state);
      this.say(this.study.nothing ?? "There is no case to show.");
      return;
    }
    const one = this.list.cases[number];
    state.case = one.name;
    byId("shown").textContent = one.name;
    this.list.choose(number);
    this.controls.show(one, state);
    this.keep();
    if (!await this.scene.show(number, state)) return;
    this.controls.window(this.scene.window());
    this.say(this.error || (one.layers.length ? "" : "Of this case there is nothing to show."));
    document.body.dataset.ready = "1";
    // How often a state was drawn whole: what waits for a change, waits for this.
    document.body.dataset.drawn = String(Number(document.body.dataset.drawn ?? 0) + 1);
  }

  keep() {
    const kept = formatState(this.state);
    if (location.hash !== kept) history.replaceState(null, "", kept);
  }

  moved(found) {
    this.controls.tell(this.list.cases[this.scene.number], found);
    if (document.body.dataset.ready === "1") {
      this.state.at = found.mm;
      clearTimeout(this.keeping);
      this.keeping = setTimeout(() => this.keep(), 150);
    }
  }

  say(text) {
    byId("status").textContent = text;
    byId("status").classList.toggle("error", Boolean(text) && text === this.error);
  }

  fail(text) {
    this.error = text;
    this.say(text);
  }

  act(name) {
    const { state } = this;
    const steps = { left: [state.right ? 1 : -1, 0, 0], right: [state.right ? -1 : 1, 0, 0],
      up: [0, 1, 0], down: [0, -1, 0], above: [0, 0, 1], below: [0, 0, -1] };
    if (steps[name]) this.scene.step(...steps[name]);
    else if (VIEWS.includes(name)) this.change({ view: name });
    else if (LAYERS.includes(name)) {
      if (this.list.cases[this.number]?.layers.some((layer) => layer.kind === name)) {
        this.controls.toggle(name);
      }
    } else if (name === "next" || name === "previous") {
      this.open(this.list.beside(this.number, name === "next" ? 1 : -1));
    } else if (name === "modality") {
      const choice = byId("image");
      if (choice.length > 1) {
        this.change({ image: choice.options[(choice.selectedIndex + 1) % choice.length].value,
          low: null, high: null });
      }
    } else if (name === "lower" || name === "higher") {
      const moved = state.threshold + (name === "higher" ? 0.05 : -0.05);
      this.change({ threshold: Math.min(Math.max(Math.round(moved * 100) / 100, 0), 1) });
    } else if (name === "outline" || name === "cross") this.change({ [name]: !state[name] });
    else if (name === "flip") this.change({ right: !state.right });
    else if (name === "window") this.change({ low: null, high: null });
    else if (name === "help") byId("help").showModal();
    else if (name === "picture") this.save();
  }

  async save() {
    const url = URL.createObjectURL(await this.scene.picture());
    const name = this.state.case.replace(/[^A-Za-z0-9._-]+/g, "_");
    element("a", { href: url, download: `${name}_${this.state.view}.png` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    this.say("The picture is saved in the folder of downloads.");
  }
}
