"use strict";
const list = document.getElementById("cards");
const cards = [...list.children];
const search = document.getElementById("search");
const method = document.getElementById("method");
const sort = document.getElementById("sort");
const order = document.getElementById("order");
let falling = false;

const valueOf = (card, name) => card.getAttribute(`data-${name}`);

// Numbers by size, other text by the alphabet; what a run lacks comes last in either order.
function compare(a, b) {
  const [left, right] = [valueOf(a, sort.value), valueOf(b, sort.value)];
  if (left === null || right === null) return (left === null) - (right === null);
  const numbers = left !== "" && right !== "" && !isNaN(left) && !isNaN(right);
  const found = numbers ? left - right : left.localeCompare(right, undefined, { numeric: true });
  return falling ? -found : found;
}

function arrange() {
  order.textContent = falling ? "↓" : "↑";
  list.append(...[...cards].sort(compare));
}

function choose() {
  const words = search.value.toLowerCase().split(/\s+/);
  let left = 0;
  for (const card of cards) {
    const text = ["prompt", "method", "prior"].map((name) => valueOf(card, name)).join(" ").toLowerCase();
    const fits = words.every((word) => text.includes(word)) && (!method.value || valueOf(card, "method") === method.value);
    card.hidden = !fits;
    left += fits;
  }
  const all = `${cards.length} run${cards.length === 1 ? "" : "s"}`;
  document.getElementById("count").textContent = left === cards.length ? all : `${left} of ${all}`;
  document.getElementById("none").hidden = left > 0;
}

sort.addEventListener("change", () => {
  falling = sort.selectedOptions[0].hasAttribute("data-falling");
  arrange();
});
order.addEventListener("click", () => {
  falling = !falling;
  arrange();
});
search.addEventListener("input", choose);
method.addEventListener("change", choose);

// The turntable lies over the sides of the contact sheet as long as one looks at it.
function start(button) {
  if (!button.dataset.video || button.querySelector("video")) return;
  const video = document.createElement("video");
  Object.assign(video, { muted: true, loop: true, playsInline: true, src: button.dataset.video });
  video.addEventListener("error", () => video.remove());
  button.append(video);
  video.play().catch(() => {});
}

function stop(button) {
  button.querySelector("video")?.remove();
  button.classList.remove("turning");
}

const calm = matchMedia("(prefers-reduced-motion: reduce)");
for (const button of document.querySelectorAll("button.turn")) {
  const glance = () => calm.matches || start(button);
  const leave = () => stop(button);
  button.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && glance());
  button.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && leave());
  button.addEventListener("focus", () => button.matches(":focus-visible") && glance());
  button.addEventListener("blur", leave);
  button.addEventListener("click", () => {
    if (button.classList.toggle("turning")) start(button);
    else stop(button);
  });
}
