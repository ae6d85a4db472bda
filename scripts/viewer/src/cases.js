// The list of cases: scores, volumes, warnings; sorted by any column, the worst first.
import { element } from "./elements.js";

/** Columns of the list: key, heading, value of a case, text of a value, whether low is bad. */
function columnsOf(study) {
  const scored = study.cases.some((one) => Object.keys(one.scores).length
    || one.layers.some((layer) => layer.kind === "errors"));
  const kinds = new Set(study.cases.flatMap((one) => one.layers.map((layer) => layer.kind)));
  const number = (digits) => (value) => value.toFixed(digits);
  const columns = [{ key: "name", heading: "Case", value: (one) => one.name, text: String }];
  if (scored) {
    for (const region of study.regions) {
      columns.push({ key: `dice-${region}`, heading: `Dice ${region}`, text: number(3),
        value: (one) => one.scores[region] ?? null });
    }
  }
  for (const [kind, heading] of [["prediction", "Found ml"], ["reference", "True ml"]]) {
    if (kinds.has(kind)) {
      columns.push({ key: `${kind}_ml`, heading, value: (one) => one[`${kind}_ml`] ?? null,
        text: number(1) });
    }
  }
  columns.push({ key: "warnings", heading: "!", title: "Warnings",
    value: (one) => one.warnings.length, text: (count) => (count ? String(count) : "") });
  return columns;
}

/** Order two values; cases without one come last in either direction. */
function order(a, b, down) {
  if (a === null || b === null) return (a === null) - (b === null);
  const found = typeof a === "string"
    ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
  return down ? -found : found;
}

/** Height of a line in pixels, as viewer.css has it, and lines that are kept beyond what is seen. */
const LINE = 36;
const BEYOND = 10;

/** Only the lines that are in sight are in the page: a browser takes long to lay out a thousand. */
export class CaseList {
  /**
   * @param {HTMLTableElement} table stands in the element that scrolls
   * @param {object} study what /api/study gave
   * @param {{chosen: (number) => void, sorted: (string, boolean) => void}} listener
   */
  constructor(table, study, listener) {
    this.cases = study.cases.map((one, number) => ({ ...one, number }));
    this.shown = [...this.cases];
    this.columns = columnsOf(study);
    this.body = element("tbody");
    this.heads = new Map();
    const head = element("tr");
    for (const column of this.columns) {
      const mark = element("span", { class: "mark", "aria-hidden": "true" });
      const cell = element("th", { scope: "col", "aria-sort": "none" }, element("button", {
        type: "button", title: `Sort by ${column.title ?? column.heading}`,
        "aria-label": `Sort by ${column.title ?? column.heading}`,
        onclick: () => {
          // What comes first is what one sorts for.
          this.scroller.scrollTop = 0;
          listener.sorted(column.key, this.key === column.key
            ? !this.down : column.key.endsWith("_ml") || column.key === "warnings");
        },
      }, column.heading, mark));
      this.heads.set(column.key, { cell, mark });
      head.append(cell);
    }
    this.listener = listener;
    this.scroller = table.parentElement;
    this.above = element("tr", { "aria-hidden": "true" });
    this.below = element("tr", { "aria-hidden": "true" });
    table.setAttribute("aria-rowcount", this.cases.length + 1);
    table.replaceChildren(element("thead", {}, head), this.body);
    this.scroller.addEventListener("scroll", () => this.lay());
    new ResizeObserver(() => this.lay()).observe(this.scroller);
  }

  /** The line of a case, made when it is first seen. */
  rowOf(one) {
    if (!one.row) {
      one.button = element("button", { type: "button", title: one.name }, one.name);
      one.row = element("tr", { "data-case": one.number,
        onclick: () => this.listener.chosen(one.number) },
        element("th", { scope: "row" }, one.button),
        ...this.columns.slice(1).map(() => element("td")));
      this.fill(one);
      this.mark(one);
    }
    return one.row;
  }

  /** Put the lines that are in sight into the page, between two that stand for all others. */
  lay() {
    const first = Math.max(Math.floor(this.scroller.scrollTop / LINE) - BEYOND, 0);
    const count = Math.ceil(this.scroller.clientHeight / LINE) + 2 * BEYOND;
    const seen = this.shown.slice(first, first + count);
    this.above.style.height = `${first * LINE}px`;
    this.below.style.height = `${(this.shown.length - first - seen.length) * LINE}px`;
    const focused = document.activeElement;
    this.body.replaceChildren(this.above, ...seen.map((one, place) => {
      const row = this.rowOf(one);
      row.setAttribute("aria-rowindex", first + place + 2);
      return row;
    }), this.below);
    // Whoever moves by the keyboard stays where they were.
    if (this.body.contains(focused)) focused.focus({ preventScroll: true });
  }

  fill(one) {
    if (!one.row) return;
    this.columns.forEach((column, place) => {
      if (!place) return;
      const value = column.value(one);
      const cell = one.row.children[place];
      cell.textContent = value === null ? "" : column.text(value);
      if (column.key === "warnings") cell.title = one.warnings.join("\n");
    });
  }

  /** Take in what the server measured since. */
  learn(measures) {
    for (const found of measures) {
      const one = this.cases[found.case];
      for (const key of ["reference_ml", "prediction_ml", "scores"]) {
        if (found[key] !== undefined) one[key] = found[key];
      }
      one.warnings.push(...found.warnings);
      this.fill(one);
    }
    if (measures.length) this.sort(this.key, this.down);
  }

  sort(key, down) {
    const column = this.columns.find((each) => each.key === key);
    this.key = column ? key : "";
    this.down = down;
    this.shown = [...this.cases];
    if (column) {
      const values = new Map(this.cases.map((one) => [one, column.value(one)]));
      this.shown.sort((a, b) => order(values.get(a), values.get(b), down));
    }
    this.lay();
    for (const [name, { cell, mark }] of this.heads) {
      const here = column && name === key;
      cell.setAttribute("aria-sort", here ? (down ? "descending" : "ascending") : "none");
      mark.textContent = here ? (down ? " \u25be" : " \u25b4") : "";
    }
  }

  mark(one) {
    const here = one.number === this.chosen;
    one.row.classList.toggle("chosen", here);
    if (here) one.button.setAttribute("aria-current", "true");
    else one.button.removeAttribute("aria-current");
  }

  /** Mark a case, and bring its line into sight. */
  choose(number) {
    if (number === this.chosen) return;
    this.chosen = number;
    for (const one of this.cases) if (one.row) this.mark(one);
    const top = this.shown.findIndex((one) => one.number === number) * LINE;
    const room = this.scroller.clientHeight - 2 * LINE;
    if (top < this.scroller.scrollTop) this.scroller.scrollTop = top;
    else if (top > this.scroller.scrollTop + room) this.scroller.scrollTop = top - room;
    this.lay();
  }

  /** The case that stands so many lines below another one in the list as it is sorted. */
  beside(number, step) {
    const place = this.shown.findIndex((one) => one.number === number);
    return this.shown[Math.min(Math.max(place + step, 0), this.shown.length - 1)]?.number;
  }
}

/** In the place of a list: one case, which is shown. */
export class OneCase {
  constructor(study) {
    this.cases = study.cases.map((one, number) => ({ ...one, number }));
    this.shown = this.cases;
  }

  sort() {}

  choose() {}

  beside(number) {
    return number;
  }
}
