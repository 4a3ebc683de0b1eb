// One notice above the results: an error in words, or that nothing was found.

import { byId } from "./elements.js";

const HEADINGS = {
  photo: "This photo cannot be used",
  unlike_photo: "This photo cannot be used",
  like: "A photo of this query is not known",
  unlike: "A photo of this query is not known",
  box: "This box cannot be used",
  folder: "This folder cannot be used",
  label: "This label cannot be used",
};
const notice = byId("notice");
let timer = 0;

export const hideNotice = () => {
  clearInterval(timer);
  notice.hidden = true;
};

// `actions` is [[words, function], ...]: buttons, of which the first is the main one.
export const showNotice = (heading, words, actions = []) => {
  hideNotice();
  notice.querySelector("h3").textContent = heading;
  notice.querySelector("p").textContent = words;
  notice.querySelector(".row").replaceChildren(
    ...actions.map(([name, act], i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = name;
      button.className = i ? "" : "primary";
      button.addEventListener("click", act);
      return button;
    }),
  );
  notice.hidden = false;
};

const waitAndRetry = (seconds, retry) => {
  const button = notice.querySelector("button");
  const words = button.textContent;
  const end = Date.now() + 1000 * seconds;
  const count = () => {
    const left = Math.ceil((end - Date.now()) / 1000);
    if (left <= 0) retry();
    else button.textContent = `${words} (${left} s)`;
  };
  timer = setInterval(count, 250);
  count();
};

// `retry` repeats the request, `clear` starts again, `clearBox` searches the whole photo.
export const showError = (error, { retry, clear, clearBox }) => {
  const { status, field, message } = error;
  if (status === 429 || (status === 503 && error.retryAfter)) {
    const heading = status === 429 ? "The service is busy" : "The service is not ready";
    showNotice(heading, `${message} The request is repeated by itself.`, [
      ["Try again now", retry],
      ["Stop waiting", hideNotice],
    ]);
    waitAndRetry(error.retryAfter || 2, retry);
  } else if (status === 404 || field === "like" || field === "unlike") {
    const hint = "Photos that were uploaded are kept only for a while: choose it again.";
    showNotice(HEADINGS.like, `${message} ${hint}`, [["New search", clear]]);
  } else if (field === "box") {
    showNotice(HEADINGS.box, message, [["Clear the box", clearBox]]);
  } else if (field === "photo") {
    const choose = () => byId("file").click();
    showNotice(HEADINGS.photo, message, [["Choose another photo", choose], ["Close", hideNotice]]);
  } else if (HEADINGS[field]) {
    showNotice(HEADINGS[field], message, [["New search", clear]]);
  } else {
    const heading = status ? "The search failed" : "The service does not answer";
    showNotice(heading, message, [["Try again", retry]]);
  }
};
