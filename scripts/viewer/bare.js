// NiiVue as it comes, for scripts/benchmark_viewer.py: two volumes, three planes, nothing beside.
import { Niivue, SHOW_RENDER, SLICE_TYPE } from "@niivue/niivue";

window.begin = async () => {
  const nv = new Niivue({ logLevel: "error", loadingText: "",
    multiplanarShowRender: SHOW_RENDER.NEVER });
  await nv.attachToCanvas(document.querySelector("canvas"), false);
  await nv.loadVolumes([{ url: "image.nii" }, { url: "labels.nii", colormap: "red", opacity: 0.5 }]);
  nv.setSliceType(SLICE_TYPE.MULTIPLANAR);
  window.step = (by) => nv.moveCrosshairInVox(0, 0, by);
};
