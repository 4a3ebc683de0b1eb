// A service may require a token: it is entered once, and the browser keeps a cookie.

import { byId } from "./elements.js";

const dialog = byId("token");
const value = byId("token-value");

// Resolves to the token that was entered; "" if the dialog was closed.
export const enterToken = (refused) => {
  byId("token-words").textContent = refused
    ? "The service refused this token."
    : "It was set as TOKRET_TOKEN where the service runs.";
  value.setAttribute("aria-invalid", String(refused));
  value.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue && value.value), {
      once: true,
    });
  });
};
