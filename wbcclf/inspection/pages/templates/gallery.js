"use strict";
// Filters and sorts the pictures. Without it the page shows all of them, in the order that is written.
(() => {
  const form = document.querySelector("form.controls");
  if (!form) return;
  const cards = [...document.querySelectorAll(".card")];
  const places = new Map(cards.map((card, place) => [card, place]));
  // What to sort by, smallest first; pictures without it come last, and equal ones stay in order.
  const keys = {
    confidence: (card) => -card.dataset.confidence,
    doubt: (card) => +card.dataset.confidence,
    familiarity: (card) => +card.dataset.familiarity,
    inside: (card) => +card.dataset.inside,
  };
  const before = (one, other, key) => {
    const [a, b] = key ? [key(one), key(other)] : [NaN, NaN];
    if (isNaN(a) && isNaN(b)) return places.get(one) - places.get(other);
    return isNaN(a) - isNaN(b) || a - b || places.get(one) - places.get(other);
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
      const own = [...list.children].sort((a, b) => before(a, b, keys[form.elements.sort?.value]));
      list.append(...own);
    }
    form.querySelector("output").textContent = `${shown} of ${cards.length} pictures`;
  };
  form.hidden = false;
  form.addEventListener("change", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  show();
})();
