// Elements of the page: found by id, or made from a template.

export const byId = (id) => document.getElementById(id);

export const copyOf = (template) => byId(template).content.firstElementChild.cloneNode(true);

// An icon of the page's sprite.
export const icon = (name) => {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  const use = document.createElementNS(namespace, "use");
  use.setAttribute("href", `#icon-${name}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
};

export const thousands = (number) => Number(number).toLocaleString("en");

export const photos = (count) => `${thousands(count)} ${count === 1 ? "photo" : "photos"}`;

// What screen readers announce; the same words twice are announced twice.
export const announce = (words) => {
  const status = byId("status");
  status.textContent = "";
  requestAnimationFrame(() => {
    status.textContent = words;
  });
};
