"use strict";
// Filters and sorts the pictures. Without it the page shows all of them, in the order that is written.
(() => {
  const form = document.querySelector("form.controls");
  if (!form) return;
  const cards = [...document.querySelectorAll(".card")];
  const places = new Map(cards.map((card, place) => [card, place]));
  const value = (card, key) => (key in card.dataset ? Number(card.dataset[key]) : NaN);
  const before = (one, other, key) => {
    const [a, b] = [value(one, key), value(other, key)];
    if (!key || (isNaN(a) && isNaN(b)) || a === b) return places.get(one) - places.get(other);
    if (isNaN(a) || isNaN(b)) return isNaN(a) ? 1 : -1;
    return key === "confidence" ? b - a : a - b;
  };
  const show = () => {
    let shown = 0;
    for (const card of cards) {
      card.hidden = ["true", "called"].some(
        (name) => form.elements[name].value && form.elements[name].value !== card.dataset[name],
      );
      shown += !card.hidden;
    }
    for (const list of document.querySelectorAll("[data-gallery]")) {
      const own = [...list.children].sort((a, b) => before(a, b, form.elements.sort.value));
      list.append(...own);
    }
    form.querySelector("output").textContent = `${shown} of ${cards.length} pictures`;
  };
  form.hidden = false;
  form.addEventListener("change", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
})();
