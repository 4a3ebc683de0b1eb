// The page: its state is the link, every change of which is one search.

import { confirmRemoval, watchAdding } from "./adding.js";
import { refreshAttention, watchAttention } from "./attention.js";
import { boxInFractions, clearBox, watchBox } from "./box.js";
import { focusCard, showCards, showSkeletons, watchCards } from "./cards.js";
import { closeDetails, showDetails, watchDetails } from "./details.js";
import { announce, byId, photos, thousands } from "./elements.js";
import { dropTarget, watchFiles } from "./files.js";
import { setKnown, showChosen, watchFilters } from "./filters.js";
import { EMPTY, browseFields, formOf, isEmpty, readLink, writeLink } from "./link.js";
import { hideNotice, showError, showNotice } from "./notice.js";
import { showPreview, showQuery, showSize } from "./panel.js";
import * as service from "./service.js";

const PAGE = 24;
const KEPT_ANSWERS = 30;

let query = readLink(location.hash);
let answer = null; // {results, total, more, query, seconds}, of all pages so far
let running = new AbortController();
const answers = new Map(); // of earlier links, so that Back is immediate

const requestPage = async (offset, signal, files = []) => {
  if (files.length || !isEmpty(query)) {
    return service.search(formOf(query, offset, PAGE, files), signal);
  }
  return service.browse(browseFields(query, offset, PAGE), signal);
};

const begin = () => {
  running.abort();
  running = new AbortController();
  hideNotice();
  byId("results").setAttribute("aria-busy", "true");
  return running.signal;
};

const keep = () => {
  answers.set(writeLink(query), answer);
  if (answers.size > KEPT_ANSWERS) answers.delete(answers.keys().next().value);
};

const summaryOf = ({ results, total, seconds }) => {
  if (isEmpty(query)) return `${thousands(results.length)} of ${photos(total)}`;
  const time = Object.values(seconds ?? {}).reduce((sum, each) => sum + each, 0);
  return `${thousands(results.length)} of ${photos(total)} searched, ${time.toFixed(2)} s`;
};

const noResults = () => {
  const filtered = query.folder.length || query.label.length;
  if (filtered) {
    showNotice("No photo passes these filters", "The index has none in these folders with these labels.", [
      ["Clear the filters", () => go({ folder: [], label: [] })],
    ]);
  } else if (isEmpty(query)) {
    showNotice("The index is empty", "Add photos, or run `tokret index` on a folder of them.");
  } else {
    showNotice("No results", "The index has no other photo.", [["New search", clear]]);
  }
};

const finish = () => {
  const results = byId("results");
  results.setAttribute("aria-busy", "false");
  results.classList.remove("waiting");
  byId("results-heading").textContent = isEmpty(query) ? "Photos of the index" : "Results";
  byId("summary").textContent = summaryOf(answer);
  byId("more").hidden = !answer.more;
  byId("more").disabled = false;
  if (answer.query && query.like.length) showSize(query, answer.query);
  if (!answer.results.length) noResults();
  refreshAttention();
};

const fail = (error, retry) => {
  if (error.name === "AbortError") return;
  if (!(error instanceof service.ServiceError)) throw error;
  byId("results").setAttribute("aria-busy", "false");
  byId("results").classList.remove("waiting");
  byId("more").disabled = false;
  if (!answer) {
    showCards([]);
    byId("more").hidden = true;
    byId("summary").textContent = "\u00a0";
  }
  showError(error, { retry, clear, clearBox });
};

const showAnswer = () => {
  // Now the page's own facts are known too.
  if ("loading" in document.body.dataset) location.reload();
  showCards(answer.results);
  finish();
};

const wait = (fresh) => {
  if (fresh) {
    answer = null;
    showSkeletons();
    byId("summary").textContent = isEmpty(query) ? "Loading" : "Searching";
    byId("more").hidden = true;
  } else {
    byId("results").classList.add("waiting");
  }
};

const pause = (milliseconds) => new Promise((end) => setTimeout(end, milliseconds));

// Shows the query, from the answers that were kept or by a request.
const run = async ({ fresh = true, delay = 0 } = {}) => {
  const signal = begin();
  showQuery(query, drop);
  showChosen(query);
  answer = answers.get(writeLink(query)) ?? (fresh ? null : answer);
  if (answers.has(writeLink(query))) {
    showAnswer();
    return;
  }
  wait(!answer);
  if (delay) await pause(delay);
  if (signal.aborted) return;
  try {
    const found = await requestPage(0, signal);
    answer = normalised(found);
    keep();
    showAnswer();
    announce(byId("summary").textContent);
  } catch (error) {
    fail(error, () => run({ fresh }));
  }
};

// A photo that the results should not resemble is not one of them.
const normalised = (found) => {
  const received = found.results ?? found.photos;
  const results = received.filter(({ id }) => !query.unlike.includes(id));
  return { ...found, results, received: received.length };
};

const more = async () => {
  const signal = begin();
  byId("more").disabled = true;
  const before = answer.results.length;
  try {
    const found = normalised(await requestPage(answer.received, signal));
    answer = {
      ...answer,
      results: [...answer.results, ...found.results],
      received: answer.received + found.received,
      more: found.more,
    };
    keep();
    showCards(found.results, { append: true });
    finish();
    focusCard(before);
    announce(byId("summary").textContent);
  } catch (error) {
    fail(error, more);
  }
};

const written = () => writeLink(query) || location.pathname + location.search;

const go = (change, { replace = false, fresh = false, delay = 0 } = {}) => {
  const [first] = query.like;
  query = { ...query, ...change };
  if (query.like[0] !== first) query.box = change.box ?? null;
  if (!query.like.length) Object.assign(query, { unlike: [], box: null });
  history[replace ? "replaceState" : "pushState"](null, "", written());
  if (fresh) scrollTo(0, 0);
  return run({ fresh, delay });
};

const clear = () => {
  go({ like: [], unlike: [], box: null }, { fresh: true });
  byId("choose").focus({ preventScroll: true });
};

const drop = (id) => {
  const without = (ids) => ids.filter((each) => each !== id);
  go({ like: without(query.like), unlike: without(query.unlike) });
  byId("query-heading").focus();
};

// Photos of the person: the ids that the service gives them become the link.
const searchFiles = async (files, another) => {
  if (!files.length) {
    showNotice("No photo", "What was dropped or pasted is not a photo.");
    return;
  }
  if (another && query.like.length) {
    await addFiles(files);
    return;
  }
  const signal = begin();
  const before = { query, answer };
  query = { ...query, like: [], unlike: [], box: null };
  showPreview(files[0]);
  wait(true);
  scrollTo(0, 0);
  try {
    const found = normalised(await requestPage(0, signal, files));
    query.like = found.query.positive;
    history.pushState(null, "", written());
    showQuery(query, drop);
    answer = found;
    keep();
    showAnswer();
    announce(byId("summary").textContent);
  } catch (error) {
    if (!signal.aborted) {
      ({ query, answer } = before);
      showQuery(query, drop);
      if (answer) showAnswer();
    }
    fail(error, () => searchFiles(files, another));
  }
};

// Adds photos to a query: the first answer gives their ids, which join the link.
const addFiles = async (files) => {
  const signal = begin();
  byId("results").classList.add("waiting");
  try {
    const found = await service.search(formOf(EMPTY, 0, 1, files), signal);
    await go({ like: [...new Set([...query.like, ...found.query.positive])] });
  } catch (error) {
    fail(error, () => addFiles(files));
  }
};

const found = (id) => answer.results.find((photo) => photo.id === id);

const ACTIONS = {
  query: (id) => {
    byId("results-heading").focus({ preventScroll: true });
    go({ like: [id], unlike: [], box: null }, { fresh: true });
  },
  like: (id) =>
    go({ like: [...new Set([...query.like, id])], unlike: query.unlike.filter((each) => each !== id) }),
  unlike: (id) =>
    go({ unlike: [...new Set([...query.unlike, id])], like: query.like.filter((each) => each !== id) }),
  details: (id) => showDetails(found(id)),
  remove: async (id) => {
    if (!(await confirmRemoval(found(id)))) return;
    closeDetails();
    indexChanged();
  },
};

const indexChanged = async () => {
  answers.clear();
  loadFilters();
  run({ fresh: false });
  const { total } = await service.browse("top=1");
  byId("num-photos").textContent = photos(total);
};

const loadFilters = async () => {
  try {
    setKnown(await service.filterCounts());
    showChosen(query);
  } catch {
    // The request of the photos reports what is wrong with the service.
  }
};

watchFiles(searchFiles);
watchCards((action, id) => ACTIONS[action](id));
watchDetails((action, photo) => ACTIONS[action](photo.id));
watchAdding(indexChanged, dropTarget);
watchFilters((change) => go(change));
// A key that is held moves the box often: only where it ends is searched for.
watchBox((box, { keys }) =>
  go({ box }, { replace: keys && query.box !== null, delay: keys ? 250 : 0 }),
);
watchAttention(() => ({ id: query.like[0], box: query.box, part: boxInFractions() }));
byId("more").addEventListener("click", more);
byId("new-search").addEventListener("click", clear);
byId("hide-near-duplicates").addEventListener("change", (event) =>
  go({ hideNearDuplicates: event.target.checked }),
);
byId("leave_out_query").addEventListener("change", (event) => go({ leaveOutQuery: event.target.checked }));
byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("results-heading").focus();
});
addEventListener("popstate", () => {
  const before = query.like[0];
  query = readLink(location.hash);
  run({ fresh: query.like[0] !== before });
});
if (matchMedia("(max-width: 860px)").matches) byId("options").open = false;
loadFilters();
run();
