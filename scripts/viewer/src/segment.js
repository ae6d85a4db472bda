// The page of `pixelnet-tf serve`: the images of a case in, its segmentation over them out.
import { ask, wordsOf } from "./ask.js";
import { OneCase } from "./cases.js";
import { byId, element, swatch } from "./elements.js";
import { droppedFiles, isNifti, markedAsLabels, unpacked, zipped } from "./files.js";
import { Page } from "./page.js";

const PRIORS = { sampled: "sampled (finds more)",
  corrected: "corrected (by class frequency)",
  fitted: "fitted (on validation cases)" };
const TASKS = { receiving: "Sending the images", waiting: "Waiting for other requests",
  reading: "Reading the images", correcting: "Correcting and normalising",
  segmenting: "Segmenting" };
/** What part of the whole the end of each task stands for. */
const SHARES = { receiving: [0, 0.05], waiting: [0.05, 0.05], reading: [0.05, 0.1],
  correcting: [0.1, 0.5], segmenting: [0.5, 1] };
/** Milliseconds between two looks at how far a request is. */
const LOOK_AGAIN = 700;

/** Sixteen random bytes; `randomUUID` is for pages by https and of the own machine alone. */
function randomName() {
  return [...crypto.getRandomValues(new Uint8Array(16))]
    .map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The modality that a name tells: as a word of it, else anywhere in it, the longest first. */
export function modalityOf(name, modalities) {
  const longest = [...modalities].sort((a, b) => b.length - a.length);
  const words = name.toLowerCase().split(/[^a-z0-9]+/);
  return longest.find((each) => words.includes(each.toLowerCase()))
    ?? longest.find((each) => name.toLowerCase().includes(each.toLowerCase()));
}

class SegmentPage {
  constructor(choices) {
    this.choices = choices;
    /** What is at hand: name and blob of a NIfTI file. */
    this.images = [];
    /** Modality -> number in `images`. */
    this.chosen = new Map();
    this.page = new Page(this.study(), (own) => new OneCase(own.study));
    byId("model").append(...choices.models.map((each) => element("option", { value: each.name },
      `${each.name}, version ${each.version}`)));
    byId("model").addEventListener("change", () => this.modelChosen());
    byId("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.segment();
    });
    byId("cancel").addEventListener("click", () => this.sending?.abort());
    for (const id of ["files", "folder"]) {
      byId(id).addEventListener("change", (event) => {
        this.take([...event.target.files]);
        event.target.value = ""; // The same files can be chosen again.
      });
    }
    // A drop anywhere is meant for the form; the browser would open the file, and NiiVue, which takes
    // none here, lets none through.
    document.addEventListener("dragover", (event) => {
      event.preventDefault();
      byId("drop").classList.add("over");
    }, true);
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) byId("drop").classList.remove("over");
    }, true);
    document.addEventListener("drop", async (event) => {
      event.preventDefault();
      byId("drop").classList.remove("over");
      this.take(await droppedFiles(event.dataTransfer));
    }, true);
  }

  get model() {
    return this.choices.models.find((each) => each.name === byId("model").value)
      ?? this.choices.models[0];
  }

  get headers() {
    return this.choices.token ? { Authorization: `Bearer ${this.choices.token}` } : {};
  }

  /** What the picture shows: the images that are chosen, and what was found in them. */
  study() {
    const chosen = [...this.chosen].map(([modality, number]) => ({
      key: `image-${modality}`, kind: "image", title: modality, blob: this.images[number].blob }));
    const layers = [...chosen, ...(this.answer
      ? [{ key: "prediction", kind: "prediction", title: "prediction" }] : [])];
    return {
      labels: this.model?.labels ?? [], errors: [], maps: [], regions: [],
      cases: chosen.length ? [{ name: "case", layers, scores: {}, warnings: [] }] : [],
      nothing: "Drop the images of a case.",
      read: async (number, layer) => (layer.blob ? unpacked(layer.blob)
        : markedAsLabels(await unpacked(this.answer))),
    };
  }

  async show() {
    const study = this.study();
    await this.page.replace(study, new OneCase(study));
  }

  async begin() {
    await this.page.begin();
    await this.modelChosen();
  }

  async modelChosen() {
    const priors = this.model?.priors ?? [];
    byId("prior").replaceChildren(...priors.map((prior) => element("option", { value: prior },
      PRIORS[prior] ?? prior)));
    byId("prior").disabled = priors.length < 2;
    this.guess();
    await this.changed();
  }

  /** Give each modality the image whose name tells it; a single one that is left is the last. */
  guess() {
    const modalities = this.model?.modalities ?? [];
    this.chosen = new Map();
    for (const [number, { name }] of this.images.entries()) {
      const told = modalityOf(name, modalities);
      if (told && !this.chosen.has(told)) this.chosen.set(told, number);
    }
    const open = modalities.filter((each) => !this.chosen.has(each));
    const left = this.images.map((_, number) => number)
      .filter((number) => ![...this.chosen.values()].includes(number));
    if (open.length === 1 && left.length === 1) this.chosen.set(open[0], left[0]);
    // The first modality is the grid, and lies lowest.
    this.chosen = new Map(modalities.filter((each) => this.chosen.has(each))
      .map((each) => [each, this.chosen.get(each)]));
  }

  async take(files) {
    if (this.sending || !files.length) return;
    const nifti = files.filter(isNifti);
    try {
      if (nifti.length) {
        const added = nifti.map((file) => ({ name: file.name, blob: file }));
        const names = new Set(added.map((each) => each.name));
        this.images = [...this.images.filter((each) => !names.has(each.name)), ...added];
        if (added.length > 1) this.images = added; // A case of its own.
      } else {
        this.images = await this.converted(files.filter((file) => !file.name.startsWith(".")));
      }
      byId("working").textContent = "";
    } catch (error) {
      this.failed(error.message);
      return;
    }
    this.guess();
    await this.changed();
  }

  /** The series of DICOM files as images, by the server that has the reader for them. */
  async converted(files) {
    byId("working").textContent = `Reading ${files.length} files as DICOM\u2026`;
    const form = new FormData();
    form.append("zip", await zipped(files), "files.zip");
    const answer = await ask("/v1/dicom", { method: "POST", body: form, headers: this.headers });
    const parts = await answer.formData();
    const told = JSON.parse(parts.get("series"));
    return told.map((series, number) => ({ name: `${series.description} (${series.files} slices)`,
      blob: parts.get(`volume-${number}`) })).filter((each) => each.blob);
  }

  /** The images are others: what was found is of the ones before. */
  async changed() {
    this.answer = null;
    byId("result").hidden = true;
    const modalities = this.model?.modalities ?? [];
    byId("slots").replaceChildren(...modalities.map((modality, place) => element("div",
      { class: "field" }, element("label", { for: `slot-${place}` }, modality),
      element("select", { id: `slot-${place}`, onchange: (event) => {
        const number = event.target.value;
        const now = new Map(this.chosen);
        now.delete(modality);
        if (number !== "") now.set(modality, Number(number));
        this.chosen = new Map(modalities.filter((each) => now.has(each))
          .map((each) => [each, now.get(each)]));
        this.changed();
      } }, element("option", { value: "" }, this.images.length ? "choose" : "none yet"),
      ...this.images.map(({ name }, number) => element("option", { value: String(number),
        selected: this.chosen.get(modality) === number }, name))))));
    byId("segment").disabled = !modalities.length
      || !modalities.every((each) => this.chosen.has(each));
    await this.show();
  }

  /** Send the images, look how far the server is, and show what it found. */
  async segment() {
    const form = new FormData();
    for (const [modality, number] of this.chosen) {
      form.append(modality, this.images[number].blob, `${modality}.nii`);
    }
    const job = randomName();
    const asked = new URLSearchParams({ model: this.model.name, prior: byId("prior").value, job });
    this.working(true);
    const looking = setInterval(() => this.look(job), LOOK_AGAIN);
    try {
      this.answer = await this.send(`/v1/segment?${asked}`, form);
      this.told("receiving", 1, 1);
      await this.found();
    } catch (error) {
      this.failed(error.message);
    } finally {
      clearInterval(looking);
      this.working(false);
    }
  }

  /** By XMLHttpRequest, which alone says how much is sent. */
  send(url, form) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      request.open("POST", url);
      request.responseType = "blob";
      for (const [name, value] of Object.entries(this.headers)) {
        request.setRequestHeader(name, value);
      }
      request.upload.onprogress = ({ loaded, total }) => this.told("receiving", loaded, total);
      request.onload = async () => {
        if (request.status === 200) resolve(request.response);
        else reject(new Error(await wordsOf(new Response(request.response,
          { status: request.status }))));
      };
      request.onerror = () => reject(new Error("the server is gone"));
      request.onabort = () => reject(new Error("Cancelled."));
      request.send(form);
      this.sending = request;
    });
  }

  async look(job) {
    const answer = await fetch(`/v1/jobs/${job}`, { headers: this.headers }).catch(() => null);
    if (!answer?.ok || !this.sending) return;
    const { task, done, total } = await answer.json();
    if (task !== "receiving" && this.sending) this.told(task, done, total);
  }

  told(task, done, total) {
    const [from, to] = SHARES[task] ?? [0, 0];
    byId("work").value = from + (to - from) * (total ? done / total : 0);
    byId("working").textContent = `${TASKS[task] ?? task}${
      total && task !== "receiving" ? ` (${done} of ${total})` : ""}\u2026`;
  }

  working(now) {
    byId("work").hidden = !now;
    byId("cancel").hidden = !now;
    for (const field of byId("form").querySelectorAll("select, input, #segment")) {
      field.disabled = now;
    }
    if (now) {
      byId("working").classList.remove("error");
      byId("result").hidden = true;
    } else {
      this.sending = null;
      byId("prior").disabled = byId("prior").length < 2;
    }
  }

  failed(text) {
    byId("working").textContent = text;
    byId("working").classList.add("error");
  }

  async found() {
    if (this.link) URL.revokeObjectURL(this.link);
    this.link = URL.createObjectURL(this.answer);
    byId("download").href = this.link;
    byId("download").download = "segmentation.nii.gz";
    this.page.state.prediction ||= 0.5;
    await this.show();
    const volumes = this.page.scene.volumesOf("prediction");
    byId("volumes").replaceChildren(...(this.model.labels.filter((each) => each.value)).map(
      ({ value, name, colour }) => element("tr", {}, element("th", { scope: "row" },
        swatch(colour), name), element("td", {}, `${(volumes[value] ?? 0).toFixed(1)} ml`))));
    byId("result").hidden = false;
    byId("working").textContent = "Done.";
    byId("download").focus();
  }
}

/** What the server can do; where it wants a token, once it has one. */
async function choicesOf() {
  try {
    return await (await ask("/v1/segment")).json();
  } catch (error) {
    if (error.status !== 401) throw error;
  }
  byId("token-field").hidden = false;
  byId("working").textContent = "This server wants its token.";
  byId("token").focus();
  return new Promise((resolve) => {
    byId("token").addEventListener("change", async (event) => {
      const token = event.target.value.trim();
      try {
        const answer = await ask("/v1/segment", { headers: { Authorization: `Bearer ${token}` } });
        byId("token-field").hidden = true;
        byId("working").textContent = "";
        resolve({ ...await answer.json(), token });
      } catch (error) {
        byId("working").textContent = error.message;
      }
    });
  });
}

export async function startSegment() {
  document.title = "Segment a case - PixelNet";
  await new SegmentPage(await choicesOf()).begin();
}
