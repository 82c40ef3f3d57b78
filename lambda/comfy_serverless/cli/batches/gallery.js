"use strict";
const figures = [...document.querySelectorAll("main > figure")];
const filter = document.getElementById("filter");
const viewer = document.getElementById("viewer");
const root = document.documentElement;
let shown = null;

function apply() {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const figure of figures) {
    const text = figure.textContent.toLowerCase();
    figure.hidden = !words.every((word) => text.includes(word));
  }
}

function show(link) {
  shown = link;
  viewer.querySelector("img").src = link.href;
  viewer.querySelector("a").href = link.href;
  viewer.querySelector("a").textContent = link.title;
  if (!viewer.open) viewer.showModal();
}

function move(step) {
  const links = figures.filter((one) => !one.hidden).map((one) => one.querySelector("a.picture")).filter(Boolean);
  const next = links[links.indexOf(shown) + step];
  if (next) show(next);
}

filter.addEventListener("input", apply);
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.picture");
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    show(link);
  } else if (event.target.closest(".labels button")) {
    filter.value = event.target.closest(".labels button").dataset.value;
    apply();
  }
});
viewer.addEventListener("click", (event) => event.target.closest("a") || viewer.close());
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") move(1);
  if (event.key === "ArrowLeft") move(-1);
});
document.getElementById("theme").addEventListener("click", () => {
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = isDark ? "light" : "dark";
});
