// The box around the thing to search for, over the query's photo.
//
// It is held in fractions of the photo's sides, so that it needs no size of the page's.

import { announce, byId } from "./elements.js";

const SMALLEST = 0.03;
const STEP = 0.02;
const stage = byId("stage");
const element = byId("box");

let box = null; // [x0, y0, x1, y1]
let size = [0, 0]; // of the upright photo, in pixels
let changed = () => {};

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

const draw = () => {
  element.hidden = !box;
  byId("clear-box").hidden = !box;
  byId("draw-box").hidden = Boolean(box);
  byId("draw-box").disabled = !size[0];
  byId("box-keys").hidden = !box;
  byId("box-hint").hidden = Boolean(box);
  stage.classList.toggle("boxed", Boolean(box));
  if (!box) return;
  const percent = box.map((value) => `${100 * value}%`);
  element.style.left = percent[0];
  element.style.top = percent[1];
  element.style.width = `${100 * (box[2] - box[0])}%`;
  element.style.height = `${100 * (box[3] - box[1])}%`;
};

const pixels = () => box && box.map((value, i) => Math.round(value * size[i % 2]));

const words = () => {
  const [x0, y0, x1, y1] = pixels();
  return `Box of ${x1 - x0} by ${y1 - y0} pixels, ${x0} from the left, ${y0} from the top`;
};

const finish = ({ keys = false } = {}) => {
  announce(box ? words() : "No box: the whole photo is searched for");
  changed(pixels(), { keys });
};

// `onChange(box in pixels or null, {keys: whether the keyboard moved it})`.
export const watchBox = (onChange) => {
  changed = onChange;
};

export const setBox = (given, width, height) => {
  size = [width ?? 0, height ?? 0];
  box = given && width && height ? given.map((value, i) => value / size[i % 2]) : null;
  draw();
};

// For drawing: [x0, y0, x1, y1] in fractions of the photo's sides.
export const boxInFractions = () => box ?? [0, 0, 1, 1];

export const clearBox = () => {
  const focused = document.activeElement === element || document.activeElement === byId("clear-box");
  box = null;
  draw();
  if (focused) byId("draw-box").focus();
  finish();
};

const moved = (from, dx, dy) => {
  const x = clamp(dx, -from[0], 1 - from[2]);
  const y = clamp(dy, -from[1], 1 - from[3]);
  return [from[0] + x, from[1] + y, from[2] + x, from[3] + y];
};

const between = (a, b) => [
  Math.min(a[0], b[0]),
  Math.min(a[1], b[1]),
  Math.max(a[0], b[0]),
  Math.max(a[1], b[1]),
];

const largeEnough = ([x0, y0, x1, y1]) => x1 - x0 >= SMALLEST && y1 - y0 >= SMALLEST;

const KEYS = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] };

element.addEventListener("keydown", (event) => {
  if (event.key === "Escape") {
    event.preventDefault();
    clearBox();
    return;
  }
  const step = KEYS[event.key];
  if (!step || !box) return;
  event.preventDefault();
  if (event.shiftKey) {
    const [x0, y0, x1, y1] = box;
    box = [x0, y0, clamp(x1 + step[0], x0 + SMALLEST, 1), clamp(y1 + step[1], y0 + SMALLEST, 1)];
  } else {
    box = moved(box, ...step);
  }
  draw();
  finish({ keys: true });
});

byId("draw-box").addEventListener("click", () => {
  box = [0.2, 0.2, 0.8, 0.8];
  draw();
  element.focus();
  finish();
});
byId("clear-box").addEventListener("click", clearBox);

// By pointer: from an empty place a new box, within the box a move, at a corner a size.
const CORNERS = { nw: [2, 3], ne: [0, 3], sw: [2, 1], se: [0, 1] };
let drag = null;

const at = (event) => {
  const area = stage.getBoundingClientRect();
  return [
    clamp((event.clientX - area.left) / area.width, 0, 1),
    clamp((event.clientY - area.top) / area.height, 0, 1),
  ];
};

stage.addEventListener("pointerdown", (event) => {
  // A finger that starts on a photo without a box scrolls the page.
  if (event.button !== 0 || (event.pointerType === "touch" && !box) || !size[0]) return;
  const start = at(event);
  const corner = CORNERS[event.target.dataset?.corner];
  drag = { pointer: event.pointerId, start, before: box };
  if (corner) drag.fixed = corner.map((i) => box[i]);
  else if (!element.contains(event.target)) drag.fixed = start;
  stage.setPointerCapture(event.pointerId);
  event.preventDefault();
  if (box) element.focus({ preventScroll: true });
});

stage.addEventListener("pointermove", (event) => {
  if (drag?.pointer !== event.pointerId) return;
  const here = at(event);
  const [dx, dy] = [here[0] - drag.start[0], here[1] - drag.start[1]];
  const next = drag.fixed ? between(drag.fixed, here) : moved(drag.before, dx, dy);
  if (!largeEnough(next)) return;
  box = next;
  draw();
});

stage.addEventListener("pointerup", (event) => {
  if (drag?.pointer !== event.pointerId) return;
  const { before } = drag;
  drag = null;
  if (box !== before) finish();
});

stage.addEventListener("pointercancel", () => {
  if (!drag) return;
  box = drag.before;
  drag = null;
  draw();
});
