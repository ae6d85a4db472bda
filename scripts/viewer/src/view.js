// The page of `pixelnet-tf view`: all cases of a folder, their scores and volumes.
import { ask } from "./ask.js";
import { CaseList } from "./cases.js";
import { byId } from "./elements.js";
import { Page } from "./page.js";

/** Milliseconds between two looks for what the server has measured since. */
const LOOK_AGAIN = 1000;

/** Fill in what the server measures while the page is open. */
async function measure(page) {
  let known = 0;
  for (;;) {
    const { measures, cases } = await (await ask(`/api/measures?from=${known}`)).json();
    known += measures.length;
    page.list.learn(measures);
    byId("progress").textContent = known < cases ? `measured ${known} of ${cases}` : "";
    if (measures.some((found) => found.case === page.number && found.warnings.length)) {
      page.controls.show(page.list.cases[page.number], page.state);
    }
    if (known >= cases) return;
    await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN));
  }
}

export async function startView() {
  const study = await (await ask("/api/study")).json();
  study.read = async (number, layer) => (
    await ask(`/api/cases/${number}/${layer.key}.nii`)).arrayBuffer();
  document.title = `${study.title} - PixelNet viewer`;
  byId("title").textContent = study.title;
  byId("count").textContent = study.cases.length === 1 ? "1 case" : `${study.cases.length} cases`;
  const page = new Page(study, (own) => new CaseList(byId("cases"), study, {
    chosen: (number) => own.open(number),
    sorted: (sort, down) => own.change({ sort, down }),
  }));
  await page.begin();
  await measure(page);
}
