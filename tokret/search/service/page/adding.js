// Photos are added to the index, and removed from it. Absent where it is read-only.

import { announce, byId } from "./elements.js";
import { addPhotos, removePhoto } from "./service.js";

const dialog = byId("add");

const line = (file) => {
  const item = document.createElement("li");
  const name = document.createElement("span");
  name.textContent = file.name;
  const state = document.createElement("span");
  state.className = "note";
  state.textContent = "waiting";
  item.append(name, state);
  byId("added").append(item);
  return (words, failed = false) => {
    state.textContent = words;
    item.classList.toggle("failed", failed);
  };
};

const addOne = async (file, folder) => {
  const form = new FormData();
  form.append("photo", file);
  form.append("folder", folder);
  await addPhotos(form);
};

// One after the other: a photo that is refused does not keep the others out.
const addAll = async (files, onChange) => {
  const folder = byId("add-folder").value.trim();
  const lines = files.map((file) => [file, line(file)]);
  let added = 0;
  for (const [file, state] of lines) {
    state("being added");
    try {
      await addOne(file, folder);
      state("added");
      added += 1;
    } catch (error) {
      state(error.message, true);
    }
  }
  announce(`${added} of ${files.length} photos were added`);
  if (added) onChange();
};

// `onChange()` after the index has changed; `dropTarget(element, onFiles)` takes drops.
export const watchAdding = (onChange, dropTarget) => {
  if (!dialog) return;
  const add = (files) => files.length && addAll(files, onChange);
  byId("open-add").addEventListener("click", () => {
    byId("added").replaceChildren();
    dialog.showModal();
  });
  byId("add-choose").addEventListener("click", () => byId("add-file").click());
  byId("add-file").addEventListener("change", (event) => {
    add([...event.target.files]);
    event.target.value = "";
  });
  dropTarget(dialog, add);
};

// Resolves to whether the photo was removed.
export const confirmRemoval = (photo) => {
  const confirm = byId("confirm");
  const warning = confirm.querySelector(".warning");
  byId("confirm-name").textContent = photo.name;
  warning.hidden = true;
  confirm.returnValue = "cancel";
  confirm.showModal();
  return new Promise((resolve) => {
    const submit = async (event) => {
      if (event.submitter?.value !== "remove") return;
      event.preventDefault();
      try {
        await removePhoto(photo.id);
        confirm.close("remove");
      } catch (error) {
        warning.textContent = error.message;
        warning.hidden = false;
      }
    };
    confirm.addEventListener("submit", submit);
    confirm.addEventListener(
      "close",
      () => {
        confirm.removeEventListener("submit", submit);
        resolve(confirm.returnValue === "remove");
      },
      { once: true },
    );
  });
};
