// Stands in for zarrita: this page opens no Zarr images.
function refuse() {
  throw new Error("Zarr images are not opened here");
}
export const open = refuse;
export const root = refuse;
export const get = refuse;
export const slice = refuse;
export class FetchStore {
  constructor() {
    refuse();
  }
}
