"use strict";
// The slider of each attribute: how many records a cut would keep.
for (const slider of document.querySelectorAll(".slider")) {
  const about = JSON.parse(slider.dataset.cut);
  const input = slider.querySelector("input");
  const output = slider.querySelector("output");
  const mark = slider.parentElement.querySelector(".movable");
  const show = () => {
    const place = Number(input.value);
    const reaching = about.reaching[place];
    const passing = about.operator[0] === ">" ? reaching : about.whole - reaching;
    const share = about.whole ? (100 * passing) / about.whole : 0;
    const at = String(about.thresholds[place]);
    output.textContent = about.name + " " + about.operator + " " + at + " alone keeps " +
      passing.toLocaleString("en") + " of " + about.whole.toLocaleString("en") + " (" + share.toFixed(1) + "%)";
    input.setAttribute("aria-valuetext", output.textContent);
    mark.setAttribute("transform", "translate(" + about.places[place] + " 0)");
  };
  // The mark in the picture can be dragged too.
  const picture = mark.ownerSVGElement;
  const drag = (event) => {
    if (!event.buttons) return;
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(picture.getScreenCTM().inverse()).x;
    const distance = (place) => Math.abs(about.places[place] - at);
    let nearest = 0;
    for (let place = 1; place < about.places.length; place++) if (distance(place) < distance(nearest)) nearest = place;
    input.value = String(nearest);
    show();
  };
  picture.addEventListener("pointerdown", drag);
  picture.addEventListener("pointermove", drag);
  input.hidden = false;
  input.addEventListener("input", show);
  show();
}
// The search: only conversations that hold the words stay.
const find = document.querySelector(".find");
if (find) {
  const input = find.querySelector("input");
  const output = find.querySelector("output");
  const shown = Array.from(document.querySelectorAll("article"), (one) => [one, one.textContent.toLowerCase()]);
  const kinds = document.querySelectorAll(".kind");
  find.hidden = false;
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const [one, text] of shown) {
      one.hidden = !words.every((word) => text.includes(word));
      found += one.hidden ? 0 : 1;
    }
    for (const kind of kinds) {
      kind.hidden = !kind.querySelector("article:not([hidden])");
      if (words.length && !kind.hidden) kind.open = true;
    }
    output.textContent = words.length ? found + " of " + shown.length + " shown" : "";
  });
}
// On paper, everything is open.
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details")) one.open = true;
});
