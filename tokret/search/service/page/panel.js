// The query panel: the first photo with its box, and the other photos as chips.

import { setBox } from "./box.js";
import { byId, copyOf } from "./elements.js";
import { isEmpty } from "./link.js";
import { imageUrl } from "./service.js";

const image = byId("query-photo");
let shownId = null;
let preview = "";

const forget = () => {
  if (preview) URL.revokeObjectURL(preview);
  preview = "";
};

const sized = (width, height) => {
  if (width && height) byId("stage").style.setProperty("--ratio", width / height);
};

image.addEventListener("error", () => byId("stage").classList.add("gone"));
image.addEventListener("load", () => {
  byId("stage").classList.remove("gone");
  sized(image.naturalWidth, image.naturalHeight);
  if (!image.src.startsWith("blob:")) forget();
});

const stageVisible = (visible) => {
  byId("chosen").hidden = !visible;
  byId("drop").hidden = visible;
};

const state = (query) => {
  byId("main").dataset.state = query ? "query" : "empty";
  byId("new-search").hidden = !query;
};

// A photo that was just dropped, until the service has answered.
export const showPreview = (file) => {
  forget();
  shownId = null;
  preview = URL.createObjectURL(file);
  image.src = preview;
  setBox(null, 0, 0);
  state(true);
  stageVisible(true);
  byId("positives").hidden = true;
  byId("negatives").hidden = true;
};

// The size is known from the first answer on: {width, height, box} of its query.
export const showSize = (query, answered) => {
  sized(answered.width, answered.height);
  setBox(answered.box ?? query.box, answered.width, answered.height);
};

const chip = (id, words, onRemove) => {
  const made = copyOf("chip");
  made.querySelector("img").src = imageUrl(id, 160);
  const button = made.querySelector("button");
  button.setAttribute("aria-label", words);
  button.title = words;
  button.addEventListener("click", onRemove);
  return made;
};

const chips = (block, ids, words, onRemove) => {
  block.hidden = !ids.length;
  block
    .querySelector("ul")
    .replaceChildren(...ids.map((id, i) => chip(id, `${words} ${i + 1}`, () => onRemove(id))));
};

// `onRemove(id)` of a chip.
export const showQuery = (query, onRemove) => {
  const [first = null] = query.like;
  state(!isEmpty(query));
  stageVisible(Boolean(first));
  if (first !== shownId) {
    shownId = first;
    setBox(null, 0, 0);
    if (first) image.src = imageUrl(first, 640);
    else image.removeAttribute("src");
  }
  const several = query.like.length > 1 ? query.like : [];
  chips(byId("positives"), several, "Remove photo", onRemove);
  chips(byId("negatives"), query.unlike, "Remove unlike photo", onRemove);
  byId("hide-near-duplicates").checked = query.hideNearDuplicates;
  byId("leave_out_query").checked = query.leaveOutQuery;
};
