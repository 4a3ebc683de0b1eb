// A query as the part of the page's address after #, which restores it.

const ID = /^[0-9a-f]{16}$/;

export const EMPTY = Object.freeze({
  like: [],
  unlike: [],
  box: null,
  folder: [],
  label: [],
  hideNearDuplicates: false,
  leaveOutQuery: true,
});

const box = (value) => {
  const numbers = (value ?? "").split(",").map(Number);
  return numbers.length === 4 && numbers.every((n) => Number.isFinite(n) && n >= 0)
    ? numbers
    : null;
};

const unique = (values) => [...new Set(values)];

export const readLink = (hash) => {
  const fields = new URLSearchParams(hash.replace(/^#/, ""));
  const ids = (name) => unique(fields.getAll(name).filter((id) => ID.test(id)));
  const like = ids("like");
  return {
    like,
    // Photos not to resemble need one to resemble.
    unlike: like.length ? ids("unlike") : [],
    box: like.length ? box(fields.get("box")) : null,
    folder: unique(fields.getAll("folder")),
    label: unique(fields.getAll("label")),
    hideNearDuplicates: fields.get("near_duplicates") === "hide",
    leaveOutQuery: fields.get("leave_out_query") !== "no",
  };
};

// The fields of a query, as [name, value], in one order: of links and of requests.
const filters = (query) => [
  ...query.folder.map((value) => ["folder", value]),
  ...query.label.map((value) => ["label", value]),
];

const photosOf = (query) => [
  ...query.like.map((id) => ["like", id]),
  ...query.unlike.map((id) => ["unlike", id]),
  ...(query.box ? [["box", query.box.map(Math.round).join(",")]] : []),
];

export const writeLink = (query) => {
  const fields = [...photosOf(query), ...filters(query)];
  if (query.hideNearDuplicates) fields.push(["near_duplicates", "hide"]);
  if (!query.leaveOutQuery) fields.push(["leave_out_query", "no"]);
  const written = new URLSearchParams(fields).toString().replaceAll("%2C", ",");
  return written && `#${written}`;
};

export const formOf = (query, offset, top, files = []) => {
  const form = new FormData();
  for (const file of files) form.append("photo", file);
  for (const [name, value] of [...photosOf(query), ...filters(query)]) {
    form.append(name, value);
  }
  form.append("near_duplicates", query.hideNearDuplicates ? "hide" : "show");
  form.append("leave_out_query", query.leaveOutQuery ? "yes" : "no");
  form.append("offset", offset);
  form.append("top", top);
  return form;
};

export const browseFields = (query, offset, top) =>
  new URLSearchParams([...filters(query), ["offset", offset], ["top", top]]);

export const isEmpty = (query) => !query.like.length;
