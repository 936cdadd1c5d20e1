// The gallery: filters and sorts all errors, shows them in windows, keeps its state in the URL's hash.
"use strict";

onPage((page) => {
  const chunk = document.getElementById("error-data");
  if (!chunk) return;
  const data = JSON.parse(chunk.textContent);
  const byId = (id) => document.getElementById(id);
  const WINDOW = 120;
  const keys = ["true", "predicted", "pattern"];
  const selects = { true: byId("filter-true"), predicted: byId("filter-predicted"), pattern: byId("filter-pattern"), slice: byId("filter-slice"), label: byId("filter-label"), sort: byId("sort") };
  const inSlice = Object.fromEntries(Object.entries(data.slices).map(([key, rows]) => [key, new Set(rows)]));
  const gallery = byId("gallery");
  const card = byId("card").content.firstElementChild;
  let chosen = [];
  let shown = 0;

  const compareText = new Intl.Collator("en").compare;
  const orders = {
    "": null,
    unsure: (a, b) => data.confidence[a] - data.confidence[b] || a - b,
    path: (a, b) => compareText(data.path[a], data.path[b]) || a - b,
    pattern: (a, b) => (data.pattern[a] || Infinity) - (data.pattern[b] || Infinity) || a - b,
  };

  function choose(state) {
    const rows = [];
    for (let n = 0; n < data.id.length; n += 1) {
      if (keys.every((key) => state[key] === "" || data[key][n] === Number(state[key]))
        && (state.slice === "" || inSlice[state.slice].has(n))
        && (state.label === "" || Object.hasOwn(data.flags, n) === (state.label === "1"))) rows.push(n);
    }
    if (orders[state.sort]) rows.sort(orders[state.sort]);
    return rows;
  }

  function percent(share) {
    const text = (100 * share).toFixed(1);
    if (Number(text) >= 100 && share < 1) return ">\u202f99.9\u202f%";
    if (Number(text) === 0 && share > 0) return "<\u202f0.1\u202f%";
    return `${text}\u202f%`;
  }

  function makeCard(n) {
    const node = card.cloneNode(true);
    const link = node.querySelector("a");
    link.href = `errors/${data.id[n]}.html`;
    link.title = data.path[n];
    const [photo, heat] = node.querySelectorAll("img");
    if (data.pictures[n] > 0) {
      photo.src = `images/${data.id[n]}.jpg`;
      photo.alt = `Image ${data.id[n]} as the model saw it`;
    } else {
      photo.remove();
    }
    if (data.pictures[n] > 1) heat.src = `images/${data.id[n]}-predicted.jpg`;
    else heat.replaceWith(note(data.pictures[n] > 0));
    const [trueName, predictedName] = node.querySelectorAll("bdi");
    trueName.textContent = data.classes[data.true[n]];
    predictedName.textContent = data.classes[data.predicted[n]];
    const sure = node.querySelector("data");
    sure.value = data.confidence[n];
    sure.textContent = percent(data.confidence[n]);
    const flag = node.querySelector(".flag");
    if (Object.hasOwn(data.flags, n)) {
      flag.title = data.flags[n];
      flag.querySelector(".sr-only").textContent = data.flags[n];
    } else {
      flag.remove();
    }
    if (data.pattern[n]) {
      const tag = node.querySelector(".tag");
      tag.textContent = `pattern ${data.pattern[n]}`;
      tag.title = data.patterns[data.pattern[n]];
    }
    return node;
  }

  function note(hasPicture) {
    const element = document.createElement("span");
    element.className = hasPicture ? "stack-note" : "stack-empty";
    element.textContent = hasPicture ? "no map" : "no picture";
    return element;
  }

  const observer = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) showMore();
  }, { rootMargin: "1200px" });

  function showMore() {
    const end = Math.min(shown + WINDOW, chosen.length);
    const fresh = document.createDocumentFragment();
    for (; shown < end; shown += 1) fresh.append(makeCard(chosen[shown]));
    gallery.append(fresh);
    // Observing afresh asks again whether the end is in sight; it may be, after a short window.
    observer.unobserve(byId("sentinel"));
    if (shown < chosen.length) observer.observe(byId("sentinel"));
  }

  function readHash() {
    const parts = page.state;
    const state = {};
    for (const [key, select] of Object.entries(selects)) {
      const value = parts.get(key) ?? "";
      state[key] = [...select.options].some((option) => option.value === value) ? value : "";
    }
    return state;
  }

  function readSelects() {
    return Object.fromEntries(Object.entries(selects).map(([key, select]) => [key, select.value]));
  }

  function show(state) {
    for (const [key, select] of Object.entries(selects)) select.value = state[key];
    chosen = choose(state);
    shown = 0;
    gallery.replaceChildren();
    showMore();
    const count = (number) => number.toLocaleString("en");
    const all = chosen.length === data.id.length;
    const noun = data.id.length === 1 ? "error" : "errors";
    byId("shown").textContent = all ? `All ${count(chosen.length)} ${noun}` : `${count(chosen.length)} of ${count(data.id.length)} ${noun}`;
    byId("order").textContent = selects.sort.selectedOptions[0].textContent;
    byId("no-match").hidden = chosen.length > 0;
    byId("clear").disabled = Object.values(state).every((value) => value === "");
  }

  function writeHash(state) {
    page.state = new URLSearchParams(Object.entries(state).filter(([, value]) => value !== ""));
  }

  for (const select of Object.values(selects)) {
    select.addEventListener("change", () => writeHash(readSelects()));
  }
  for (const id of ["clear", "clear-empty"]) byId(id).addEventListener("click", () => { page.state = ""; });
  page.onState(() => show(readHash()));

  // Arrows move between cards.
  gallery.addEventListener("keydown", (event) => {
    const links = [...gallery.querySelectorAll("a")];
    const here = links.indexOf(document.activeElement);
    if (here < 0) return;
    const perRow = Math.max(1, links.findIndex((link) => link.getBoundingClientRect().top > links[0].getBoundingClientRect().top));
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -perRow, ArrowDown: perRow }[event.key];
    if (!by || !links[here + by]) return;
    event.preventDefault();
    links[here + by].focus();
  });

  for (const element of document.querySelectorAll("[data-static]")) element.hidden = true;
  byId("filters").hidden = false;
  show(readHash());
});
