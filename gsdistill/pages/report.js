"use strict";
// Values under the pointer, and with the arrow keys, on each curve.
for (const chart of document.querySelectorAll("figure[data-points]")) {
  const points = JSON.parse(chart.dataset.points).filter((point) => point[1] !== null);
  const svg = chart.querySelector("svg");
  const [line, dot] = chart.querySelectorAll(".probe");
  const output = chart.querySelector("output");
  const atRest = output.textContent;
  let at = points.length - 1;

  const show = (place) => {
    at = Math.min(Math.max(place, 0), points.length - 1);
    const [step, value, seconds, x, y] = points[at];
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    dot.setAttribute("cx", x);
    dot.setAttribute("cy", y);
    const number = value.toLocaleString("en", { maximumSignificantDigits: 4 });
    const when = seconds === null ? "" : `, ${seconds.toFixed(1)} s`;
    output.textContent = `${number} at step ${step}${when}`;
    chart.classList.add("probing");
  };
  const hide = () => {
    chart.classList.remove("probing");
    output.textContent = atRest;
  };

  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const distance = (point) => Math.abs(point[3] - x);
    show(points.reduce((best, point, place) => (distance(point) < distance(points[best]) ? place : best), 0));
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -points.length, End: points.length }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    show(chart.classList.contains("probing") ? at + move : at);
  });
}

if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
  for (const video of document.querySelectorAll("video")) {
    video.autoplay = false;
    video.pause();
  }
}
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
