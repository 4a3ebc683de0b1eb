// Photos that are dropped, pasted, chosen, or taken with the camera.

import { byId } from "./elements.js";

const isPhoto = (file) => !file.type || file.type.startsWith("image/");

export const photosOf = (transfer) => [...(transfer?.files ?? [])].filter(isPhoto);

const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");

export const dropTarget = (element, onFiles, onHover = () => {}) => {
  let depth = 0;
  const hover = (inside) => {
    depth = inside ? depth + 1 : Math.max(0, depth - 1);
    element.classList?.toggle("dragged", depth > 0);
    onHover(depth > 0);
  };
  const on = (type, act) =>
    element.addEventListener(type, (event) => {
      if (!holdsFiles(event)) return;
      // A target within another one, the dialog within the page, is the only one.
      event.preventDefault();
      event.stopPropagation();
      act(event);
    });
  on("dragenter", () => hover(true));
  on("dragleave", () => hover(false));
  on("dragover", () => {});
  on("drop", (event) => {
    depth = 0;
    hover(false);
    onFiles(photosOf(event.dataTransfer));
  });
};

// `onFiles(files, another)`: `another` if they are added to the query that there is.
export const watchFiles = (onFiles) => {
  let another = false;
  const choose = (input, adding) => {
    another = adding;
    byId(input).click();
  };
  byId("choose").addEventListener("click", () => choose("file", false));
  byId("take").addEventListener("click", () => choose("camera", false));
  byId("add-positive").addEventListener("click", () => choose("file", true));
  for (const input of [byId("file"), byId("camera")]) {
    input.addEventListener("change", () => {
      onFiles(photosOf(input), another);
      input.value = "";
    });
  }
  document.addEventListener("paste", (event) => {
    const files = photosOf(event.clipboardData);
    if (files.length) onFiles(files, false);
  });
  dropTarget(document.body, (files) => onFiles(files, false), (hovered) => {
    byId("drop-here").hidden = !hovered;
  });
};
