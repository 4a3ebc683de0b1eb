// Folders and labels to choose from, with counts, and those that are chosen.

import { announce, byId, icon, thousands } from "./elements.js";

const MOST_SHOWN = 200;
const KINDS = { folder: byId("folders"), label: byId("labels") };

let known = { folder: [], label: [] };
let chosen = { folder: [], label: [] };
let changed = () => {};

const matching = (kind, wanted) => {
  const lower = wanted.trim().toLowerCase();
  return known[kind].filter(({ name }) => name.toLowerCase().includes(lower));
};

const toggle = (kind, name, on) => {
  const others = chosen[kind].filter((each) => each !== name);
  changed({ [kind]: on ? [...others, name] : others });
};

const choice = (kind, { name, photos }) => {
  const label = document.createElement("label");
  label.className = "check";
  const box = document.createElement("input");
  box.type = "checkbox";
  box.checked = chosen[kind].includes(name);
  box.dataset.name = name;
  box.addEventListener("change", () => toggle(kind, name, box.checked));
  const words = document.createElement("span");
  words.textContent = name;
  const count = document.createElement("span");
  count.className = "count";
  count.textContent = thousands(photos);
  label.append(box, words, " ", count);
  const item = document.createElement("li");
  item.append(label);
  return item;
};

const fill = (kind) => {
  const list = KINDS[kind].querySelector("ul");
  const found = matching(kind, KINDS[kind].querySelector("input[type=search]").value);
  list.replaceChildren(...found.slice(0, MOST_SHOWN).map((each) => choice(kind, each)));
  const note = KINDS[kind].querySelector("p");
  const hidden = found.length - MOST_SHOWN;
  note.textContent = hidden > 0 ? `${thousands(hidden)} more: type to narrow them.` : "";
  if (!found.length) note.textContent = `No ${kind} has these letters.`;
  note.hidden = !note.textContent;
};

const prepare = (kind) => {
  const field = document.createElement("input");
  field.type = "search";
  field.placeholder = `Search ${thousands(known[kind].length)} ${kind}s`;
  field.setAttribute("aria-label", `Search the ${kind}s`);
  field.addEventListener("input", () => {
    fill(kind);
    announce(`${matching(kind, field.value).length} ${kind}s`);
  });
  field.hidden = known[kind].length < 8;
  const list = document.createElement("ul");
  list.setAttribute("aria-label", `${kind}s`);
  const note = document.createElement("p");
  note.className = "note";
  KINDS[kind].querySelector("summary").after(field, list, note);
};

// `onChange({folder: names})` or `({label: names})`.
export const watchFilters = (onChange) => {
  changed = onChange;
};

const sorted = (counts) =>
  Object.entries(counts)
    .filter(([name]) => name)
    .map(([name, photos]) => ({ name, photos }))
    .sort((a, b) => a.name.localeCompare(b.name));

// {folders: {name: photos}, labels: {name: photos}}; again after the index changed.
export const setKnown = ({ folders, labels }) => {
  known = { folder: sorted(folders), label: sorted(labels) };
  for (const kind of Object.keys(KINDS)) {
    KINDS[kind].hidden = known[kind].length < 2;
    if (!KINDS[kind].querySelector("ul")) prepare(kind);
    fill(kind);
  }
  if (byId("known-folders")) {
    const options = known.folder.slice(0, MOST_SHOWN).map(({ name }) => new Option(name));
    byId("known-folders").replaceChildren(...options);
  }
};

const chip = (kind, name) => {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  const words = document.createElement("span");
  words.textContent = name;
  button.append(words, icon("close"));
  button.setAttribute("aria-label", `Remove the ${kind} ${name}`);
  button.addEventListener("click", () => {
    toggle(kind, name, false);
    byId("results-heading").focus({ preventScroll: true });
  });
  item.append(button);
  return item;
};

export const showChosen = (query) => {
  chosen = { folder: query.folder, label: query.label };
  const inUse = byId("filters-in-use");
  inUse.replaceChildren();
  for (const kind of Object.keys(KINDS)) {
    const count = chosen[kind].length;
    KINDS[kind].querySelector("summary .note").textContent = count ? `${count} chosen` : "any";
    for (const box of KINDS[kind].querySelectorAll("[data-name]")) {
      box.checked = chosen[kind].includes(box.dataset.name);
    }
    inUse.append(...chosen[kind].map((name) => chip(kind, name)));
  }
  inUse.hidden = !inUse.children.length;
};
