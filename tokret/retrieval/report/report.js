"use strict";
(() => {
  const photos = JSON.parse(document.getElementById("photos").textContent);
  const cards = document.getElementById("cards");
  const viewer = document.getElementById("viewer");
  const buttons = [...document.querySelectorAll("[data-order]")];
  const given = [...cards.children];
  const precision = new Map(given.map((card) => [card, Number(card.dataset.precision)]));
  const orders = {
    given: () => given,
    worst: () => [...given].sort((a, b) => precision.get(a) - precision.get(b)),
    best: () => [...given].sort((a, b) => precision.get(b) - precision.get(a)),
  };
  const image = (kind, data, alt) => {
    const made = document.createElement("img");
    made.src = `data:image/${kind};base64,${data}`;
    made.alt = alt;
    return made;
  };

  for (const shown of document.querySelectorAll("img[data-photo]")) {
    shown.src = `data:image/webp;base64,${photos[shown.dataset.photo].photo}`;
  }

  const order = (name) => {
    const chosen = Object.hasOwn(orders, name) ? name : "given";
    cards.append(...orders[chosen]());
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.order === chosen));
    }
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      order(button.dataset.order);
      history.replaceState(null, "", `#${button.dataset.order}`);
    });
  }
  window.addEventListener("hashchange", () => {
    const name = location.hash.slice(1);
    if (Object.hasOwn(orders, name)) order(name);
  });
  order(location.hash.slice(1));

  const find = document.getElementById("find");
  const count = document.getElementById("count");
  find.addEventListener("input", () => {
    const wanted = find.value.trim().toLowerCase();
    let left = 0;
    for (const card of given) {
      card.hidden = !card.querySelector("h3").textContent.toLowerCase().includes(wanted);
      left += card.hidden ? 0 : 1;
    }
    count.textContent = wanted ? `${left} of ${given.length}` : "";
  });

  const figure = (content, words) => {
    const made = document.createElement("figure");
    const caption = document.createElement("figcaption");
    caption.textContent = words;
    made.append(content, caption);
    return made;
  };
  // The photo, and over its query box, if it has one, a map of weights.
  const look = (button, map, alt) => {
    const { photo } = photos[button.dataset.photo];
    const made = document.createElement("div");
    made.className = "look";
    made.append(image("webp", photo, alt));
    if (map) {
      const part = document.createElement("div");
      const box = (button.dataset.box || "0 0 1 1").split(" ").map(Number);
      part.className = "part";
      part.style.left = `${100 * box[0]}%`;
      part.style.top = `${100 * box[1]}%`;
      part.style.width = `${100 * (box[2] - box[0])}%`;
      part.style.height = `${100 * (box[3] - box[1])}%`;
      part.append(image("png", map, ""));
      made.append(part);
    }
    return made;
  };
  const looks = (button) => {
    const { maps, fractions } = photos[button.dataset.photo];
    const name = button.dataset.name;
    const all = [figure(look(button, null, name), "the photo")];
    maps.forEach((map, i) => {
      const alt = `where token ${i + 1} looks in ${name}`;
      all.push(figure(look(button, map, alt), `token ${i + 1}: ${fractions[i]} %`));
    });
    return all;
  };
  for (const button of document.querySelectorAll("button.photo")) {
    button.addEventListener("click", () => {
      document.getElementById("v-title").textContent = button.dataset.name;
      document.getElementById("v-words").textContent = button.dataset.words;
      document.getElementById("v-looks").replaceChildren(...looks(button));
      viewer.showModal();
    });
  }
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close();
  });
  for (const example of document.querySelectorAll("[data-example]")) {
    const card = given.find((each) => each.id === example.dataset.example);
    example.replaceChildren(...looks(card.querySelector("button.photo")));
  }
})();
