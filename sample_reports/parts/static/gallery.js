// The gallery: filters and sorts all errors and shows the part that is in sight. Its state is in
// the address, so that a view can be sent; links to errors carry it on as `from`.
"use strict";

onPage(async (page) => {
  const chunk = document.getElementById("error-data");
  if (!chunk) return;
  // Columns, a row per error in order of the paths; see gallery_data in audit/report/views/gallery.py.
  const data = JSON.parse(new TextDecoder().decode(await unpack(JSON.parse(chunk.textContent))));
  if (page.signal.aborted) return;
  const byId = (id) => document.getElementById(id);
  const gallery = byId("gallery");
  const template = byId("card").content.firstElementChild;
  const controls = {
    find: byId("filter-find"),
    true: byId("filter-true"),
    predicted: byId("filter-predicted"),
    pattern: byId("filter-pattern"),
    slice: byId("filter-slice"),
    label: byId("filter-label"),
    min: byId("filter-min"),
    max: byId("filter-max"),
    sort: byId("sort"),
    heat: byId("show-heat"),
  };
  const filters = Object.keys(controls).filter((key) => key !== "heat");
  const options = new Map(Object.values(controls).filter((control) => control.matches("select"))
    .map((select) => [select, new Set([...select.options].map((option) => option.value))]));
  const nRows = data.id.length;
  // Rows of cards that are kept ready above and below those in sight: at once, and when all is still.
  const [SPARE_ROWS, MORE_ROWS] = [1, 4];
  const STILL = 150; // ms
  // So many cards go to paper.
  const PRINTED = 200;

  let state = null;
  let chosen = [];
  let position = 0;
  let columns = 1;
  let rowHeight = 1;
  let cards = new Map();
  let writing = null;
  let drawing = null;
  let waiting = null;

  // What is shown, and in which order

  const byConfidence = sorted((a, b) => data.confidence[b] - data.confidence[a] || a - b);
  const place = new Int32Array(nRows);
  byConfidence.forEach((row, n) => { place[row] = n; });
  const orders = {
    "": () => byConfidence,
    unsure: () => sorted((a, b) => data.confidence[a] - data.confidence[b] || a - b),
    causal: () => sorted((a, b) => (data.falls[b] ?? -Infinity) - (data.falls[a] ?? -Infinity) || place[a] - place[b]),
    pattern: () => sorted((a, b) => (data.pattern[a] || Infinity) - (data.pattern[b] || Infinity) || place[a] - place[b]),
    path: () => sorted((a, b) => a - b),
  };
  const known = {};

  // Infinity less itself is not a number, so that what stands after `||` decides among such rows.
  function sorted(compare) {
    return Int32Array.from({ length: nRows }, (_, n) => n).sort(compare);
  }

  function inOrder(sort) {
    known[sort] ??= orders[sort]();
    return known[sort];
  }

  const fold = (text) => text.normalize("NFC").toLowerCase();
  const texts = () => {
    known.texts ??= { paths: data.path.map(fold), classes: data.classes.map(fold) };
    return known.texts;
  };

  // Every word must be in the path or in the name of one of the two classes.
  function finder(words) {
    if (!words.length) return null;
    const { paths, classes } = texts();
    const named = words.map((word) => classes.map((name) => name.includes(word)));
    return (row) => words.every((word, n) => (
      named[n][data.true[row]] || named[n][data.predicted[row]] || paths[row].includes(word)));
  }

  function choose(wanted) {
    const tests = [finder(fold(wanted.find).split(/\s+/).filter(Boolean))];
    for (const key of ["true", "predicted", "pattern"]) {
      const column = data[key];
      const value = Number(wanted[key]);
      if (wanted[key] !== "") tests.push((row) => column[row] === value);
    }
    if (wanted.slice !== "") {
      const bit = data.slice_numbers.indexOf(Number(wanted.slice));
      tests.push((row) => (data.slices[row] >> bit) & 1);
    }
    if (wanted.label !== "") tests.push((row) => (data.flags[row] > 0) === (wanted.label === "1"));
    if (wanted.min !== "") tests.push((row) => data.confidence[row] >= Number(wanted.min) / 100);
    if (wanted.max !== "") tests.push((row) => data.confidence[row] <= Number(wanted.max) / 100);
    const active = tests.filter(Boolean);
    return inOrder(wanted.sort).filter((row) => active.every((fits) => fits(row)));
  }

  // State: what the controls say, and at which error the reader is. What makes no sense is left out.

  function valid(key, value) {
    const control = controls[key];
    if (options.has(control)) return options.get(control).has(value) ? value : "";
    if (key === "heat") return value === "0" ? value : "";
    if (key === "find") return value.slice(0, control.maxLength);
    return /^\d{1,3}(\.\d{1,6})?$/.test(value) && Number(value) <= 100 ? value : "";
  }

  function readAddress() {
    const parts = page.state;
    const keys = Object.keys(controls);
    const wanted = Object.fromEntries(keys.map((key) => [key, valid(key, parts.get(key) ?? "")]));
    return { ...wanted, at: /^\d{1,9}$/.test(parts.get("at") ?? "") ? parts.get("at") : "" };
  }

  function readControls() {
    const wanted = { at: "" };
    for (const [key, control] of Object.entries(controls)) {
      const value = key === "heat" ? (control.checked ? "" : "0") : control.value;
      wanted[key] = valid(key, value);
    }
    return wanted;
  }

  function setControls() {
    for (const [key, control] of Object.entries(controls)) {
      if (key === "heat") control.checked = state.heat === "";
      else if (valid(key, control.value) !== state[key]) control.value = state[key];
    }
  }

  function stateText(at) {
    const parts = Object.entries({ ...state, at }).filter(([, value]) => value !== "");
    return String(new URLSearchParams(parts));
  }

  // Browsers refuse addresses that change too often, as they would while somebody types.
  function writeAddress(delay = 0) {
    clearTimeout(writing);
    const write = () => { page.state = stateText(state.at); };
    if (delay) writing = setTimeout(write, delay);
    else write();
  }

  function show(wanted) {
    const before = state;
    state = wanted;
    setControls();
    if (before && filters.every((key) => before[key] === state[key])) {
      link(cards);
    } else {
      chosen = choose(state);
      position = 0;
      renew();
      saySelection();
    }
    if (state.at !== "" && state.at !== before?.at) {
      const row = data.id.indexOf(Number(state.at));
      const found = row < 0 ? -1 : chosen.indexOf(row);
      if (found >= 0) moveTo(found);
    }
  }

  function saySelection() {
    const count = (number) => number.toLocaleString("en");
    const noun = nRows === 1 ? "error" : "errors";
    byId("shown").textContent = chosen.length === nRows ? `All ${count(nRows)} ${noun}` : `${count(chosen.length)} of ${count(nRows)} ${noun}`;
    byId("order").textContent = controls.sort.selectedOptions[0].textContent;
    byId("no-match").hidden = chosen.length > 0;
    byId("clear").disabled = filters.every((key) => state[key] === "");
    const about = byId("about-causal");
    if (about) about.hidden = state.sort !== "causal";
  }

  // Cards

  function makeCard(row) {
    const node = template.cloneNode(true);
    const link = node.querySelector("a");
    link.title = data.path[row];
    const [photo, heat] = node.querySelectorAll("img");
    for (const image of [photo, heat]) for (const name of ["width", "height"]) image.removeAttribute(name);
    // A report in one file may lack pictures; then there is no address.
    const heatFile = data.pictures[row] > 1 && report.file(`images/${data.id[row]}-predicted.png`);
    const photoFile = data.pictures[row] > 0 && report.file(`images/${data.id[row]}.jpg`);
    if (heatFile) heat.src = heatFile;
    else heat.replaceWith(make("span", "stack-note", "no map"));
    if (photoFile) {
      photo.src = photoFile;
      photo.alt = `Image ${data.id[row]} as the model saw it`;
    } else {
      photo.parentElement.replaceChildren(make("span", "stack-empty", data.pictures[row] > 0 ? "not in this file" : "no picture"));
    }
    const [trueName, predictedName] = node.querySelectorAll("bdi");
    setName(trueName, data.classes[data.true[row]]);
    setName(predictedName, data.classes[data.predicted[row]]);
    const sure = node.querySelector("data");
    sure.value = data.confidence[row];
    sure.textContent = percent(data.confidence[row]);
    const flag = node.querySelector(".flag");
    const reason = data.reasons[data.flags[row] - 1];
    if (reason) {
      flag.title = reason;
      flag.querySelector(".sr-only").textContent = reason;
    } else {
      flag.remove();
    }
    const tag = node.querySelector(".tag");
    if (data.pattern[row]) {
      tag.textContent = `pattern ${data.pattern[row]}`;
      tag.title = data.patterns[data.pattern[row]];
    } else {
      tag.remove();
    }
    return node;
  }

  function make(tag, name, text) {
    return Object.assign(document.createElement(tag), { className: name, textContent: text });
  }

  function setName(element, name) {
    element.textContent = name;
    element.title = name;
  }

  // How causal an error's focus is, in words. The exact number is the element's value.
  function fallLine(row) {
    const line = make("span", "card-line card-fall", "");
    const fall = data.falls[row];
    if (fall === null) {
      line.textContent = "not tested";
      return line;
    }
    const by = Math.abs(fall).toFixed(1);
    const value = make("data", "", Number(by) === 0 ? "falls as much" : `falls by ${by} ${fall > 0 ? "more" : "less"}`);
    value.value = fall;
    line.append(value);
    return line;
  }

  // Lets cards lead to the pages of their errors, which know by `from` where the reader came from.
  function link(some) {
    const here = stateText("");
    for (const [n, node] of some) {
      const id = data.id[chosen[n]];
      const from = here ? `${here}&at=${id}` : `at=${id}`;
      node.querySelector("a").href = `errors/${id}.html#from=${encodeURIComponent(from)}`;
    }
  }

  // Shows the choice anew; a card that was in sight and still is stays as it is.
  function renew() {
    const old = new Map([...cards.values()].map((node) => [Number(node.dataset.row), node]));
    cards = new Map();
    gallery.replaceChildren();
    layOut(old);
  }

  // Puts the cards from `first` to before `end` into the list.
  function fill(first, end, old) {
    for (const [n, node] of cards) {
      if (n < first || n >= end) {
        node.remove();
        cards.delete(n);
      }
    }
    const [before, after] = [document.createDocumentFragment(), document.createDocumentFragment()];
    const top = cards.size ? Math.min(...cards.keys()) : end;
    const fresh = new Map();
    for (let n = first; n < end; n += 1) {
      if (cards.has(n)) continue;
      const node = old?.get(chosen[n]) ?? makeCard(chosen[n]);
      node.dataset.row = chosen[n];
      node.querySelector(".card-fall")?.remove();
      if (state.sort === "causal") node.querySelector(".card-words").append(fallLine(chosen[n]));
      node.setAttribute("aria-setsize", chosen.length);
      node.setAttribute("aria-posinset", n + 1);
      fresh.set(n, node);
      (n < top ? before : after).append(node);
    }
    gallery.prepend(before);
    gallery.append(after);
    link(fresh);
    for (const [n, node] of fresh) cards.set(n, node);
  }

  // Rows are as high as each other, so that those out of sight need no cards but only their room.
  // Cards that are not in sight yet come later, so that the others are there soon.
  function layOut(old, spare = SPARE_ROWS) {
    const style = getComputedStyle(gallery);
    const before = [columns, rowHeight];
    columns = style.gridTemplateColumns.split(" ").length;
    if (!cards.size) fill(0, Math.min(columns, chosen.length), old);
    if (!cards.size) {
      gallery.style.padding = "0";
      return;
    }
    const gap = Number.parseFloat(style.rowGap);
    rowHeight = gallery.firstElementChild.getBoundingClientRect().height + gap;
    const rows = Math.ceil(chosen.length / columns);
    const top = gallery.getBoundingClientRect().top;
    const first = Math.max(0, Math.min(Math.floor(-top / rowHeight) - spare, rows - 1));
    const end = Math.max(first + 1, Math.min(Math.ceil((innerHeight - top) / rowHeight) + spare, rows));
    clearTimeout(waiting);
    if (spare < MORE_ROWS) waiting = setTimeout(() => layOut(old, MORE_ROWS), STILL);
    const isThere = cards.has(first * columns) && cards.has(Math.min(end * columns, chosen.length) - 1);
    if (isThere && columns === before[0] && rowHeight === before[1]) return;
    const hadFocus = gallery.contains(document.activeElement);
    fill(first * columns, Math.min(end * columns, chosen.length), old);
    gallery.style.padding = `${first * rowHeight}px 0 ${(rows - end) * rowHeight}px`;
    setPosition(Math.max(first * columns, Math.min(position, end * columns - 1, chosen.length - 1)));
    // The focus stays in sight: it would be lost with its card.
    if (hadFocus && !gallery.contains(document.activeElement)) focus();
  }

  // Of all cards one is in the order of the Tab key; arrows move from there.
  function setPosition(wanted) {
    position = wanted;
    for (const [n, node] of cards) node.querySelector("a").tabIndex = n === position ? 0 : -1;
  }

  function focus() {
    const link = cards.get(position).querySelector("a");
    link.focus({ preventScroll: true });
    return link;
  }

  function moveTo(wanted) {
    position = wanted;
    const row = Math.floor(wanted / columns);
    if (!cards.has(wanted)) {
      const top = gallery.getBoundingClientRect().top + scrollY;
      scrollTo(0, top + row * rowHeight - innerHeight / 3);
      layOut();
    }
    setPosition(wanted);
    focus().scrollIntoView({ block: "nearest" });
  }

  function drawSoon() {
    drawing ??= requestAnimationFrame(() => {
      drawing = null;
      if (!page.signal.aborted) layOut();
    });
  }

  // Events

  function change(delay) {
    show(readControls());
    writeAddress(delay);
  }

  function clear() {
    for (const key of filters) controls[key].value = "";
    change();
    controls.find.focus({ preventScroll: true });
  }

  for (const control of Object.values(controls)) {
    const isTyped = control.matches("[type=search], [type=number]");
    control.addEventListener("input", () => change(isTyped ? 250 : 0));
  }
  for (const id of ["clear", "clear-empty"]) byId(id).addEventListener("click", clear);

  page.onState(() => {
    const wanted = readAddress();
    if (Object.keys(wanted).some((key) => wanted[key] !== state[key])) show(wanted);
  });

  gallery.addEventListener("keydown", (event) => {
    if (!report.isFree(event) || !gallery.contains(document.activeElement)) return;
    if (event.key === "Escape") {
      controls.find.focus();
      return;
    }
    const last = chosen.length - 1;
    const to = {
      ArrowLeft: position - 1,
      ArrowRight: position + 1,
      ArrowUp: position - columns,
      ArrowDown: Math.floor(position / columns) < Math.floor(last / columns) ? Math.min(position + columns, last) : -1,
      Home: 0,
      End: last,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    if (to >= 0 && to <= last) moveTo(to);
  });
  gallery.addEventListener("focusin", (event) => {
    for (const [n, node] of cards) if (n !== position && node.contains(event.target)) setPosition(n);
  });
  // The address remembers the error that was opened, so that the way back leads to it.
  gallery.addEventListener("click", (event) => {
    const opened = [...cards].find(([, node]) => node.contains(event.target));
    if (!opened) return;
    state.at = String(data.id[chosen[opened[0]]]);
    writeAddress();
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || !report.isFree(event)) return;
    event.preventDefault();
    controls.find.focus();
    controls.find.select();
  }, { signal: page.signal });
  document.addEventListener("scroll", drawSoon, { signal: page.signal, passive: true });
  window.addEventListener("resize", drawSoon, { signal: page.signal });
  window.addEventListener("beforeprint", () => {
    const end = Math.min(chosen.length, PRINTED);
    fill(0, end);
    gallery.style.padding = "0";
    if (end < chosen.length) byId("shown").textContent = `The first ${end} of ${chosen.length.toLocaleString("en")} errors`;
  }, { signal: page.signal });
  window.addEventListener("afterprint", () => {
    renew();
    saySelection();
  }, { signal: page.signal });
  page.signal.addEventListener("abort", () => {
    clearTimeout(writing);
    clearTimeout(waiting);
    cancelAnimationFrame(drawing);
  });
  page.addKeys(
    [["/"], "searches"],
    [["←", "→", "↑", "↓"], "move over the errors"],
    [["Home", "End"], "first and last error"],
    [["Enter"], "opens the error"],
    [["Esc"], "goes back to the filters"],
  );

  for (const element of document.querySelectorAll("[data-static]")) element.hidden = true;
  byId("filters").hidden = false;
  show(readAddress());
});
