// The picture: NiiVue, the layers that are loaded, and how they are drawn.
import { DRAG_MODE, MULTIPLANAR_TYPE, NVImage, Niivue, SHOW_RENDER, SLICE_TYPE } from "@niivue/niivue";

/** By it NiiVue draws nothing below cal_min and colours from 0. Of volumes it is the second of its
 * COLORMAP_TYPE, whose name there says that what lies below fades; that is what the first does. */
const NOTHING_BELOW_MIN = 2;
/** Width of the crosshair, in percent of the image. */
const CROSS = 0.3;
const SLICES = {
  planes: SLICE_TYPE.MULTIPLANAR, all: SLICE_TYPE.MULTIPLANAR, axial: SLICE_TYPE.AXIAL,
  coronal: SLICE_TYPE.CORONAL, sagittal: SLICE_TYPE.SAGITTAL, render: SLICE_TYPE.RENDER,
};
const SAMPLES = ["uniform", "balanced"];
const LABELS = ["reference", "prediction", "errors", ...SAMPLES];
/** From the lowest layer to the uppermost. */
const ORDER = ["probabilities", ...LABELS];

function rgb(colour) {
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

/** A table of all 256 values; the ones that nobody has named are grey, and the background clear. */
function labelTable(entries) {
  const table = { R: [], G: [], B: [], A: [], I: [], labels: [] };
  for (let value = 0; value < 256; value += 1) {
    const entry = entries.find((each) => each.value === value);
    const [r, g, b] = rgb(entry?.colour || "#a9a9a9");
    table.R.push(r);
    table.G.push(g);
    table.B.push(b);
    table.A.push(value === 0 ? 0 : 255);
    table.I.push(value);
    table.labels.push(entry?.name ?? `label ${value}`);
  }
  return table;
}

export class Scene {
  /**
   * @param {object} study what /api/study gave
   * @param {{moved: (object) => void, windowed: (number, number) => void,
   *          busy: (string) => void, failed: (string) => void}} listener
   * @param {object} options of NiiVue, that are to be others
   */
  constructor(study, listener, options = {}) {
    this.listener = listener;
    this.loaded = new Map();
    this.turn = 0;
    this.take(study);
    this.nv = new Niivue({
      backColor: [0.05, 0.06, 0.08, 1],
      crosshairColor: [0.45, 0.85, 1, 0.9],
      crosshairWidth: CROSS,
      crosshairWidthUnit: "percent",
      dragMode: DRAG_MODE.windowing,
      dragAndDropEnabled: false,
      isOrientationTextVisible: true,
      showAllOrientationMarkers: true,
      isCornerOrientationText: false,
      isOrientCube: false,
      isRadiologicalConvention: true,
      multiplanarPadPixels: 6,
      multiplanarEqualSize: false,
      multiplanarShowRender: SHOW_RENDER.NEVER,
      show3Dcrosshair: true,
      scrollRequiresFocus: false,
      clipPlaneHotKey: "",
      cycleClipPlaneHotKey: "",
      viewModeHotKey: "",
      fontMinPx: 17,
      loadingText: "",
      logLevel: "error",
      ...options,
    });
    this.nv.onLocationChange = () => this.tell();
    this.nv.onIntensityChange = (volume) => {
      if (volume === this.nv.volumes[0]) this.listener.windowed(volume.cal_min, volume.cal_max);
    };
  }

  /** Follow another study, of which nothing is loaded. */
  take(study) {
    this.study = study;
    this.tables = { errors: study.errors, balanced: study.samples, uniform: study.samples };
    this.number = null;
    [this.base, this.above] = [null, null];
  }

  async attach(canvas) {
    this.canvas = canvas;
    await this.nv.attachToCanvas(canvas, false);
  }

  /** The keys of the layers that a state shows of a case, the base first. */
  wanted(number, state) {
    const layers = this.study.cases[number].layers;
    const images = layers.filter((layer) => layer.kind === "image");
    const base = images.find((layer) => layer.title === state.image) ?? images[0];
    if (!base) return [];
    const second = images.find((layer) => layer.title === state.second && layer !== base);
    const rest = ORDER.map((kind) => layers.find((layer) => layer.kind === kind))
      // Reference and prediction are there for the cursor even where they are not drawn.
      .filter((layer) => layer
        && (state[layer.kind] > 0 || layer.kind === "reference" || layer.kind === "prediction"));
    return [base, ...(second ? [second] : []), ...rest];
  }

  /** Show a case as a state says. Resolves to false where another call has overtaken this one. */
  async show(number, state) {
    this.turn += 1;
    const turn = this.turn;
    const layers = this.wanted(number, state);
    if (number !== this.number) {
      this.loaded.clear();
      this.number = number;
      this.fresh = true;
    }
    const missing = layers.filter((layer) => !this.loaded.has(layer.key));
    if (missing.length) {
      this.listener.busy(`Loading ${missing.map((layer) => layer.title).join(", ")}\u2026`);
    }
    const read = await Promise.allSettled(missing.map((layer) => this.load(number, layer)));
    if (turn !== this.turn) return false;
    read.forEach((each, place) => {
      if (each.status === "fulfilled") this.loaded.set(missing[place].key, each.value);
      else this.listener.failed(`${missing[place].title}: ${each.reason.message}`);
    });
    this.draw(layers.filter((layer) => this.loaded.has(layer.key)), state);
    this.listener.busy("");
    return true;
  }

  async load(number, layer) {
    const name = `${layer.key}.nii`;
    const image = await NVImage.loadFromUrl({ url: name, name,
      buffer: await this.study.read(number, layer), colormap: "gray", opacity: 1 });
    image.shownAs = layer;
    if (LABELS.includes(layer.kind)) {
      image.setColormapLabel(labelTable(this.tables[layer.kind] ?? this.study.labels));
    } else if (layer.kind === "probabilities") {
      image.colormap = "inferno";
      image.colormapType = NOTHING_BELOW_MIN;
      image.cal_max = 1;
    }
    image.suits = [image.cal_min, image.cal_max];
    return image;
  }

  draw(layers, state) {
    const nv = this.nv;
    this.held = layers.map((layer) => this.loaded.get(layer.key));
    const images = this.held.filter(({ shownAs }, index) => index === 0
      || (shownAs.kind === "image" ? state.blend : state[shownAs.kind]) > 0);
    // The crosshair stays where it is in the patient, whichever image lies below.
    const place = state.at ?? (this.fresh || !nv.volumes.length ? null : this.place());
    images.forEach((image, index) => {
      const { kind } = image.shownAs;
      image.opacity = kind === "image" ? (index === 0 ? 1 : state.blend) : state[kind];
      if (kind === "probabilities") {
        image.frame4D = Math.min(state.class, image.nFrame4D - 1);
        image.cal_min = Math.max(state.threshold, 0.001);
        image.cal_max = 1;
      } else if (kind === "image") {
        const chosen = index === 0 && state.low !== null && state.high !== null;
        [image.cal_min, image.cal_max] = chosen ? [state.low, state.high] : image.suits;
        if (image.cal_max <= image.cal_min) image.cal_max = image.cal_min + 1;
      }
    });
    if (!this.held.length) nv.volumes = [];
    nv.opts.isRadiologicalConvention = state.right;
    nv.opts.sagittalNoseLeft = state.right;
    nv.opts.crosshairWidth = state.cross ? CROSS : 0;
    nv.opts.show3Dcrosshair = state.cross;
    // A pixel that was drawn alone is all outline, and would else fade into those beside it.
    const drawn = SAMPLES.some((kind) => state[kind] > 0);
    nv.opts.atlasOutline = state.outline || drawn ? 1 : 0;
    nv.opts.multiplanarShowRender = state.view === "all" ? SHOW_RENDER.ALWAYS : SHOW_RENDER.NEVER;
    nv.opts.multiplanarLayout = state.view === "all" ? MULTIPLANAR_TYPE.GRID : MULTIPLANAR_TYPE.AUTO;
    nv.opts.sliceType = SLICES[state.view];
    if (!images.length) {
      nv.drawScene();
      return;
    }
    nv.setInterpolation(drawn);
    this.refresh(images, nv.opts.atlasOutline);
    nv.drawScene();
    if (place) this.moveTo(place);
    else if (this.fresh) this.moveTo(this.middleOfLesion() ?? this.middle());
    else this.tell();
    this.fresh = false;
  }

  /** Hand images to NiiVue, and let it make anew only what has changed: the lowest takes longest. */
  refresh(images, outline) {
    const nv = this.nv;
    const look = (image) => [this.number, image.shownAs.key, image.opacity, image.cal_min,
      image.cal_max, image.frame4D].join("|");
    const base = look(images[0]);
    const above = [outline, ...images.slice(1).map(look)].join("||");
    if (base === this.base && above === this.above) return;
    nv.volumes = images;
    [nv.back] = images;
    nv.overlays = images.slice(1);
    if (base !== this.base || images.length === 1) nv.updateGLVolume();
    else nv.overlays.forEach((image, index) => nv.refreshLayers(image, index + 1));
    [this.base, this.above] = [base, above];
  }

  /** Where the crosshair is, in mm along R, A, S. */
  place() {
    return [...this.nv.frac2mm(this.nv.scene.crosshairPos, 0, true)].slice(0, 3);
  }

  moveTo(mm) {
    this.nv.scene.crosshairPos = this.nv.mm2frac(mm, 0, true);
    this.nv.drawScene();
    this.tell();
  }

  step(x, y, z) {
    if (this.nv.volumes.length) this.nv.moveCrosshairInVox(x, y, z);
  }

  middle() {
    return [...this.nv.frac2mm([0.5, 0.5, 0.5], 0, true)].slice(0, 3);
  }

  /** A voxel of the lesion in the axial slice with most of it, in mm; null where there is none. */
  middleOfLesion() {
    const image = ["prediction", "reference"].map((key) => this.loaded.get(key)).find(Boolean);
    if (!image) return null;
    const [, nx, ny, nz] = image.dimsRAS;
    const counts = new Uint32Array(nz);
    const [start, steps] = [image.img2RASstart, image.img2RASstep];
    const at = (x, y, z) => image.img[start[0] + x * steps[0] + start[1] + y * steps[1]
      + start[2] + z * steps[2]];
    for (let z = 0; z < nz; z += 1) {
      for (let y = 0; y < ny; y += 1) {
        for (let x = 0; x < nx; x += 1) counts[z] += at(x, y, z) > 0;
      }
    }
    const z = counts.indexOf(counts.reduce((most, each) => Math.max(most, each), 0));
    if (!counts[z]) return null;
    const inside = [];
    for (let y = 0; y < ny; y += 1) {
      for (let x = 0; x < nx; x += 1) if (at(x, y, z) > 0) inside.push([x, y]);
    }
    const mean = [0, 1].map((axis) => inside.reduce((sum, each) => sum + each[axis], 0) / inside.length);
    const far = ([x, y]) => (x - mean[0]) ** 2 + (y - mean[1]) ** 2;
    const [x, y] = inside.reduce((best, each) => (far(each) < far(best) ? each : best));
    return [...this.nv.vox2mm([x, y, z], image.matRAS)].slice(0, 3);
  }

  /** Label value -> volume of its voxels in ml, of a layer of labels. */
  volumesOf(key) {
    const image = this.loaded.get(key);
    const voxel = [1, 2, 3].reduce((product, axis) => product * image.hdr.pixDims[axis], 1) / 1000;
    const volumes = {};
    for (const value of image.img) volumes[value] = (volumes[value] ?? 0) + 1;
    for (const value of Object.keys(volumes)) volumes[value] *= Math.abs(voxel);
    return volumes;
  }

  /** Say where the crosshair is, and what every layer holds there. */
  tell() {
    if (!this.nv.volumes.length) return;
    const mm = this.place();
    const values = {};
    for (const image of this.held) {
      const voxel = image.mm2vox(mm);
      const inside = voxel.every((each, axis) => each >= 0 && each < image.dimsRAS[axis + 1]);
      const read = (frame) => (inside ? image.getValue(...voxel, frame) : null);
      values[image.shownAs.key] = image.nFrame4D > 1
        ? Array.from({ length: image.nFrame4D }, (_, frame) => read(frame)) : read(0);
    }
    this.listener.moved({ mm, values });
  }

  /** The window of the lowest image, and the range of its numbers. */
  window() {
    const image = this.nv.volumes[0];
    return image && { low: image.cal_min, high: image.cal_max,
      least: image.global_min, most: image.global_max };
  }

  /** The picture as it is, as PNG. */
  picture() {
    this.nv.drawScene();
    return new Promise((resolve) => this.canvas.toBlob(resolve, "image/png"));
  }
}
