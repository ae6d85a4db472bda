// Files that are dropped on a page or chosen: which there are, and what they hold.

/** All files of an entry of a drop, at any depth. */
async function filesOf(entry) {
  if (entry.isFile) {
    return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  }
  const reader = entry.createReader();
  const found = [];
  // A folder gives its entries in parts, the last of which is empty.
  for (;;) {
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!part.length) break;
    found.push(...(await Promise.all(part.map(filesOf))).flat());
  }
  return found;
}

/** The files of a drop; folders are opened. */
export async function droppedFiles(transfer) {
  // The entries are to be had while the event lasts alone.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  return entries.length ? (await Promise.all(entries.map(filesOf))).flat() : [...transfer.files];
}

export const isNifti = (file) => /\.nii(\.gz)?$/i.test(file.name);

/** The bytes of a file, unpacked where they are packed by gzip. */
export async function unpacked(blob) {
  const start = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  if (start[0] !== 0x1f || start[1] !== 0x8b) return blob.arrayBuffer();
  return new Response(blob.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

/** Mark a NIfTI file as one of labels: NiiVue then draws whole numbers, and nothing between two. */
export function markedAsLabels(buffer) {
  const view = new DataView(buffer);
  const label = 1002;
  if (view.getInt32(0, true) === 540) view.setInt32(504, label, true);
  else view.setInt16(68, label, true);
  return buffer;
}

const SUMS = Uint32Array.from({ length: 256 }, (_, byte) => {
  let sum = byte;
  for (let bit = 0; bit < 8; bit += 1) sum = sum & 1 ? 0xedb88320 ^ (sum >>> 1) : sum >>> 1;
  return sum >>> 0;
});

function checksum(bytes) {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = SUMS[(sum ^ byte) & 255] ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
}

/** One zip of files, under numbers and as they are: what is sent is named by nobody. */
export async function zipped(files) {
  const parts = [];
  const index = [];
  let place = 0;
  const put = (list, ...fields) => {
    const view = new DataView(new ArrayBuffer(fields.reduce((sum, [size]) => sum + size, 0)));
    let at = 0;
    for (const [size, value] of fields) {
      if (size === 4) view.setUint32(at, value, true);
      else view.setUint16(at, value, true);
      at += size;
    }
    list.push(view.buffer);
    return view.byteLength;
  };
  for (const [number, file] of files.entries()) {
    const bytes = new Uint8Array(await file.arrayBuffer());
    const name = new TextEncoder().encode(String(number).padStart(5, "0"));
    // Version, flags, method (stored), time, date (the first there is), sum, sizes, name, more.
    const about = [[2, 20], [2, 0], [2, 0], [2, 0], [2, 33], [4, checksum(bytes)],
      [4, bytes.length], [4, bytes.length], [2, name.length], [2, 0]];
    put(index, [4, 0x02014b50], [2, 20], ...about, [2, 0], [2, 0], [2, 0], [4, 0], [4, place]);
    index.push(name);
    place += put(parts, [4, 0x04034b50], ...about) + name.length + bytes.length;
    parts.push(name, bytes);
  }
  const length = index.reduce((sum, part) => sum + part.byteLength, 0);
  put(index, [4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, length],
    [4, place], [2, 0]);
  return new Blob([...parts, ...index], { type: "application/zip" });
}
