// What the page that loads this script is: one of a server, or a report.
import { byId } from "./elements.js";
import { startEmbedded } from "./embed.js";
import { startSegment } from "./segment.js";
import { startView } from "./view.js";

const START = { view: startView, segment: startSegment };
const start = START[document.body.dataset.page];

if (!start) startEmbedded();
else {
  start().catch((error) => {
    byId("status").textContent = `The page cannot be shown: ${error.message}`;
    byId("status").classList.add("error");
  });
}
