// The grid of photos: results of a query, or photos of the index to start from.

import { byId, copyOf } from "./elements.js";
import { imageUrl } from "./service.js";

const SKELETONS = [1.33, 0.75, 1, 1.5, 0.75, 1.33, 1, 0.66, 1.5, 1.33, 0.75, 1];
const list = byId("cards");

// Very long and very narrow photos are shown whole, in a frame that is neither.
const ratioOf = ({ width, height }) =>
  width && height ? Math.min(2.6, Math.max(0.56, width / height)) : 1;

export const fileName = (name) => name.split("/").at(-1);

const scoreOf = (photo) => {
  if (photo.score === undefined) return [];
  if (!photo.near_duplicates) return [photo.score.toFixed(3)];
  const near = document.createElement("span");
  near.className = "near";
  near.textContent = `+${photo.near_duplicates}`;
  near.title = "near-duplicates that are hidden";
  const words = document.createElement("span");
  words.className = "words";
  words.textContent = ` ${near.title}`;
  return [`${photo.score.toFixed(3)} `, near, words];
};

const cardOf = (photo, rank) => {
  const card = copyOf("card");
  card.dataset.id = photo.id;
  card.style.setProperty("--ratio", ratioOf(photo));
  card.classList.toggle("cropped", !photo.width);
  const shown = fileName(photo.name);
  const button = card.querySelector(".photo");
  button.setAttribute("aria-label", `${rank}. ${shown}: search with this photo`);
  for (const action of card.querySelectorAll("[title]")) {
    action.setAttribute("aria-label", `${action.title}: ${shown}`);
  }
  card.querySelector(".card-label").textContent = photo.label ?? "";
  const name = card.querySelector(".card-name");
  name.textContent = shown;
  name.title = photo.name;
  card.querySelector(".score").append(...scoreOf(photo));
  const image = card.querySelector("img");
  const gone = () => card.classList.add("gone");
  image.addEventListener("error", gone);
  if (photo.missing) gone();
  else image.src = imageUrl(photo.id, 320);
  return card;
};

export const showSkeletons = () => {
  list.setAttribute("aria-hidden", "true");
  list.replaceChildren(
    ...SKELETONS.map((ratio) => {
      const card = document.createElement("li");
      card.className = "card skeleton";
      card.style.setProperty("--ratio", ratio);
      card.append(document.createElement("div"), document.createElement("p"));
      return card;
    }),
  );
};

// The focused photo keeps the focus if it is still among the results.
const focusedAction = () => {
  const focused = document.activeElement?.closest("[data-act]");
  const card = focused && list.contains(focused) ? focused.closest(".card") : null;
  return card && [card.dataset.id, focused.dataset.act];
};

export const showCards = (photos, { append = false } = {}) => {
  list.removeAttribute("aria-hidden");
  const focused = focusedAction();
  const before = append ? list.children.length : 0;
  const made = photos.map((photo, i) => cardOf(photo, before + i + 1));
  if (append) list.append(...made);
  else list.replaceChildren(...made);
  if (!focused || append) return;
  const [id, act] = focused;
  const same = list.querySelector(`[data-id="${id}"] [data-act="${act}"]`);
  (same ?? byId("results-heading")).focus({ preventScroll: true });
};

export const focusCard = (number) =>
  list.children[number]?.querySelector(".photo").focus({ preventScroll: true });

const STEPS = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };

// `onAct(action, id)` of "query", "like", "unlike" and "details".
export const watchCards = (onAct) => {
  list.addEventListener("click", (event) => {
    const button = event.target.closest("[data-act]");
    if (button) onAct(button.dataset.act, button.closest(".card").dataset.id);
  });
  list.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (!step || !event.target.matches(".photo")) return;
    const last = list.children.length - 1;
    const here = [...list.children].indexOf(event.target.closest(".card"));
    event.preventDefault();
    const next = list.children[Math.min(last, Math.max(0, here + step))];
    next.querySelector(".photo").focus();
  });
};
