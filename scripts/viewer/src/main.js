// What the page that loads this script is.
import { byId } from "./elements.js";
import { startSegment } from "./segment.js";
import { startView } from "./view.js";

const START = { view: startView, segment: startSegment };

START[document.body.dataset.page]().catch((error) => {
  byId("status").textContent = `The page cannot be shown: ${error.message}`;
  byId("status").classList.add("error");
});
