// Bundles the pages into pixelnet_tf/page: one HTML file each, one script, one sheet, the licences of
// what is in the script, and the digest of the sources, by which a test tells whether the bundle is
// current.
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, "..", "..", "pixelnet_tf", "page");

// NiiVue reads chunked Zarr images by WebAssembly, which no page of ours is allowed to run.
const withoutZarr = {
  name: "without-zarr",
  setup(bundler) {
    bundler.onResolve({ filter: /^zarrita$/ }, () => ({ path: join(here, "src", "no_zarr.js") }));
  },
};

const made = await build({
  entryPoints: { viewer: join(here, "src", "main.js") },
  absWorkingDir: here,
  bundle: true,
  minify: true,
  charset: "ascii",
  legalComments: "none",
  format: "iife",
  target: ["es2022"],
  outdir: out,
  metafile: true,
  logLevel: "warning",
  plugins: [withoutZarr],
});
for (const name of ["view", "segment"]) {
  const part = (file) => readFileSync(join(here, "src", file), "utf8");
  writeFileSync(join(out, `${name}.html`), part("page.html").replace("<!-- name -->", name)
    .replace(/^ *<!-- side -->\n/m, () => part(`side_${name}.html`)));
}
copyFileSync(join(here, "src", "viewer.css"), join(out, "viewer.css"));

const packages = new Map();
for (const output of Object.values(made.metafile.outputs)) {
  for (const [input, { bytesInOutput }] of Object.entries(output.inputs)) {
    const found = /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input);
    if (!found || bytesInOutput === 0) continue;
    const folder = join(here, "node_modules", found[1], "src");
    const files = existsSync(folder) ? readdirSync(folder, { recursive: true })
      .filter((name) => /\.[jt]s$/.test(name)).sort().map((name) => join(folder, name)) : [];
    // Notices that stand in the code itself, of what a package has taken from others.
    const notices = [join(here, input), ...files].flatMap((file) => readFileSync(file, "utf8")
      .match(/\/\*[^]*?\*\//g) ?? []).filter((comment) => /copyright/i.test(comment))
      .map((comment) => comment.replace(/^\s+/gm, ""));
    packages.set(found[1], new Set([...(packages.get(found[1]) ?? []), ...notices]));
  }
}
const words = ["Software of others in viewer.js, and its licences."];
for (const [name, notices] of [...packages].sort(([a], [b]) => (a < b ? -1 : 1))) {
  const folder = join(here, "node_modules", name);
  const about = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
  const beside = join(here, "licences", `${name.replace("/", "__")}.txt`);
  const text = file ? join(folder, file) : beside;
  if (!existsSync(text)) throw new Error(`${name} has no file of its licence; add ${beside}`);
  words.push("=".repeat(78), `${name} ${about.version} (${about.license})`, "",
    readFileSync(text, "utf8").trim(), ...[...notices].map((notice) => `\n${notice}`));
}
writeFileSync(join(out, "LICENSES.txt"), words.join("\n") + "\n");

const sources = ["package.json", "package-lock.json", "build.mjs",
  ...["licences", "src"].flatMap(
    (folder) => readdirSync(join(here, folder)).sort().map((name) => `${folder}/${name}`))];
const hash = createHash("sha256");
for (const name of sources) hash.update(`${name}\0`).update(readFileSync(join(here, name)));
writeFileSync(join(out, "sources.sha256"), hash.digest("hex") + "\n");
