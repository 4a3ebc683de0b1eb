// Requests to the service. Each may be aborted; every failure is a ServiceError.

import { enterToken } from "./token.js";

export class ServiceError extends Error {
  constructor(message, { status = 0, field = "", retryAfter = 0 } = {}) {
    super(message);
    Object.assign(this, { status, field, retryAfter });
  }
}

const sentence = (words) => `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;

const errorOf = async (response) => {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // No JSON: an error of something between the page and the service.
  }
  return new ServiceError(
    sentence(body.error || `the service answered with status ${response.status}`),
    {
      status: response.status,
      field: body.field ?? "",
      retryAfter: Number(response.headers.get("Retry-After")) || 0,
    },
  );
};

const send = async (path, options) => {
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServiceError("There is no connection. Is `tokret serve` running?");
  }
};

const logIn = async () => {
  for (let refused = false; ; refused = true) {
    const token = await enterToken(refused);
    if (!token) throw new ServiceError("The service needs a token.", { status: 401 });
    const form = new FormData();
    form.append("token", token);
    if ((await send("login", { method: "POST", body: form })).ok) return;
  }
};

// Requests that are refused at the same time wait for one token.
let entering = null;

const json = async (path, options = {}) => {
  const response = await send(path, options);
  if (response.ok) return response.json();
  if (response.status !== 401) throw await errorOf(response);
  entering ??= logIn().finally(() => {
    entering = null;
  });
  await entering;
  options.signal?.throwIfAborted();
  return json(path, options);
};

export const search = (form, signal) => json("search", { method: "POST", body: form, signal });
export const browse = (fields, signal) => json(`photos?${fields}`, { signal });
export const filterCounts = () => json("filters");
export const photo = (id, signal) => json(`photos/${id}`, { signal });
export const attention = (id, box) =>
  json(`photos/${id}/attention${box ? `?box=${box.map(Math.round).join(",")}` : ""}`);
export const addPhotos = (form) => json("photos", { method: "POST", body: form });
export const removePhoto = (id) => json(`photos/${id}`, { method: "DELETE" });
export const imageUrl = (id, side) => `photos/${id}/image${side ? `?side=${side}` : ""}`;
