// The dialog of one photo: large, with all that the index knows of it.

import { coverDetails } from "./attention.js";
import { fileName } from "./cards.js";
import { byId } from "./elements.js";
import { imageUrl, photo as request } from "./service.js";

const dialog = byId("details");
const image = dialog.querySelector("img");
let shown = null;
let pending = null;

const row = (term, value) => {
  if (value === undefined || value === null || value === "") return [];
  const dt = document.createElement("dt");
  dt.textContent = term;
  const dd = document.createElement("dd");
  dd.textContent = value;
  return [dt, dd];
};

const pixels = ({ width, height }) => (width && height ? `${width} × ${height} pixels` : "");

const fill = (found, known) => {
  const paths = known.names?.length ? known.names : [found.name];
  dialog
    .querySelector("dl")
    .replaceChildren(
      ...paths.flatMap((path, i) => row(i ? "Copy" : "Path", path)),
      ...row("Label", found.label),
      ...row("Score", found.score?.toFixed(6)),
      ...row("Near-duplicates hidden", found.near_duplicates || ""),
      ...row("Size", pixels({ ...found, ...known })),
      ...row("Id", found.id),
    );
};

export const showDetails = async (found) => {
  shown = found;
  pending?.abort();
  pending = new AbortController();
  byId("details-name").textContent = fileName(found.name);
  image.removeAttribute("src");
  image.width = found.width || 4;
  image.height = found.height || 3;
  image.alt = fileName(found.name);
  dialog.querySelector("[data-act=original]").href = imageUrl(found.id);
  fill(found, {});
  if (!found.missing) image.src = imageUrl(found.id, 1280);
  dialog.showModal();
  coverDetails(dialog.querySelector("canvas"), found.id);
  try {
    fill(found, await request(found.id, pending.signal));
  } catch (error) {
    if (error.name !== "AbortError" && shown === found) {
      dialog.querySelector("dl").append(...row("Note", error.message));
    }
  }
};

export const closeDetails = () => dialog.close();

// `onAct(action, photo)` of "query", "like", "unlike" and "remove".
export const watchDetails = (onAct) => {
  dialog.addEventListener("close", () => pending?.abort());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
    const action = event.target.closest("[data-act]")?.dataset.act;
    if (!action || action === "original") return;
    if (action !== "remove") dialog.close();
    onAct(action, shown);
  });
};
