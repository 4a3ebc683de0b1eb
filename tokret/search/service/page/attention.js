// Where the tokens look: their attention maps, drawn over the query and the results.

import { byId } from "./elements.js";
import { attention } from "./service.js";

// Of tokens shown together, after Okabe and Ito: distinct to colour-blind people too.
const COLOURS = [
  [240, 228, 66],
  [86, 180, 233],
  [230, 120, 20],
  [0, 190, 140],
  [214, 130, 180],
  [240, 240, 240],
];
const VEIL = 0.78;
const WITHOUT_HOVER = matchMedia("(hover: none)");
const group = byId("tokens");
const cards = byId("cards");

let shownToken = "off"; // "off", "all" or a token's number
let shownQuery = () => ({});
const kept = new Map();

const mapsOf = (id, box) => {
  const key = `${id} ${box}`;
  if (!kept.has(key)) {
    const maps = attention(id, box);
    maps.catch(() => kept.delete(key));
    kept.set(key, maps);
    if (kept.size > 400) kept.delete(kept.keys().next().value);
  }
  return kept.get(key);
};

// One pixel a position: a dark veil with a hole where one token looks; of all tokens,
// each position in the colour of the token that looks at it most.
const pixelsOf = ({ maps, width, height }, token) => {
  const image = new ImageData(width, height);
  const chosen = token === "all" ? maps : [maps[token]];
  const highest = chosen.map((map) => Math.max(...map) || 1);
  for (let i = 0; i < width * height; i += 1) {
    const weights = chosen.map((map, t) => map[i] / highest[t]);
    const most = Math.max(...weights);
    const colour = token === "all" ? COLOURS[weights.indexOf(most) % COLOURS.length] : [0, 0, 0];
    const strength = token === "all" ? 0.8 * most : 1;
    const tint = token === "all" ? colour.map((c) => c * strength) : colour;
    const alpha = token === "all" ? Math.max(VEIL * (1 - most), 0.62 * most) : VEIL * (1 - most);
    image.data.set([...tint, 255 * alpha], 4 * i);
  }
  return image;
};

const draw = (canvas, maps, token, [x0, y0, x1, y1]) => {
  const small = new OffscreenCanvas(maps.width, maps.height);
  small.getContext("2d").putImageData(pixelsOf(maps, token), 0, 0);
  const area = canvas.getBoundingClientRect();
  canvas.width = Math.max(1, Math.round(area.width));
  canvas.height = Math.max(1, Math.round(area.height));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  const [w, h] = [canvas.width, canvas.height];
  context.drawImage(small, x0 * w, y0 * h, (x1 - x0) * w, (y1 - y0) * h);
};

const WHOLE = [0, 0, 1, 1];

// `box` is in the photo's pixels, `part` the same in fractions of its sides.
const cover = async (canvas, id, box = null, part = WHOLE) => {
  if (shownToken === "off") return;
  const wanted = `${id} ${box}`;
  canvas.dataset.wanted = wanted;
  try {
    const maps = await mapsOf(id, box);
    if (shownToken === "off" || canvas.dataset.wanted !== wanted) return;
    const token = shownToken === "all" ? "all" : Math.min(shownToken, maps.tokens - 1);
    offerTokens(maps.tokens);
    draw(canvas, maps, token, part);
    canvas.classList.add("seen");
  } catch (error) {
    // Any other error is that of one photo.
    if (error.message.includes("attention maps")) noMaps(error.message);
  }
};

const uncover = (canvas) => {
  delete canvas.dataset.wanted;
  canvas.classList.remove("seen");
};

// Of a model of another head, as the service reports it.
const noMaps = (words) => {
  group.title = words;
  choose("off");
  for (const button of group.querySelectorAll("button")) button.disabled = true;
  byId("tokens-heading").textContent = words;
};

const coverQuery = () => {
  const { id, box, part } = shownQuery();
  if (id) cover(byId("query-attention"), id, box, part);
};

const coverCard = (card) => cover(card.querySelector(".attention"), card.dataset.id);

const visible = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting && WITHOUT_HOVER.matches) coverCard(target);
  }
});

// After new cards or another choice. Where nothing hovers, every photo in view has its map.
export const refreshAttention = () => {
  visible.disconnect();
  for (const canvas of document.querySelectorAll("canvas.seen")) uncover(canvas);
  if (shownToken === "off") return;
  coverQuery();
  if (!WITHOUT_HOVER.matches) return;
  for (const card of cards.querySelectorAll("[data-id]")) visible.observe(card);
};

export const coverDetails = (canvas, id) => {
  uncover(canvas);
  cover(canvas, id);
};

const choose = (token) => {
  shownToken = token;
  for (const button of group.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.token === String(token)));
  }
  refreshAttention();
};

const button = (token, words, label) => {
  const made = document.createElement("button");
  made.type = "button";
  made.dataset.token = token;
  made.textContent = words;
  made.setAttribute("aria-label", label);
  made.setAttribute("aria-pressed", String(token === shownToken));
  made.addEventListener("click", () => choose(token));
  return made;
};

let offered = 0;
const offerTokens = (tokens) => {
  if (tokens === offered) return;
  offered = tokens;
  const own = [...Array(tokens).keys()].map((token) =>
    button(token, String(token + 1), `Attention of token ${token + 1}`),
  );
  for (const old of group.querySelectorAll("[data-token]:not([data-token=off], [data-token=all])")) old.remove();
  group.append(...own);
};

// `query()` gives the query's first photo: {id, box in pixels, part in fractions}.
export const watchAttention = (query) => {
  shownQuery = query;
  if (!group) return; // of a model without maps
  group.append(button("off", "off", "No attention maps"), button("all", "all", "Attention of all tokens"));
  for (const [begin, end] of [
    ["pointerover", "pointerout"],
    ["focusin", "focusout"],
  ]) {
    cards.addEventListener(begin, (event) => {
      const card = event.target.closest("[data-id]");
      if (card && event.target.closest(".frame")) coverCard(card);
    });
    cards.addEventListener(end, (event) => {
      const frame = event.target.closest(".frame");
      if (!frame || frame.contains(event.relatedTarget) || WITHOUT_HOVER.matches) return;
      uncover(frame.querySelector(".attention"));
    });
  }
};
