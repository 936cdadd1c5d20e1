// Filters and sorts all images of a comparison, a page of cards at a time. The state is in the address.
"use strict";

onPage(async (page) => {
  const source = document.getElementById("image-data");
  if (!source) return;
  const PAGE = 60;
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(new TextDecoder().decode(await unpack(JSON.parse(source.textContent))));
  if (page.signal.aborted) return;
  const template = byId("card").content.firstElementChild;
  const gallery = byId("gallery");
  const nRows = data.id.length;
  const lastRun = data.labels.length - 1;
  const controls = {
    find: byId("filter-find"),
    step: byId("filter-step"),
    outcome: byId("filter-outcome"),
    true: byId("filter-true"),
    pattern: byId("filter-pattern"),
    maps: byId("filter-maps"),
    sort: byId("sort"),
    heat: byId("show-heat"),
  };
  const standard = Object.fromEntries(Object.keys(controls).map((key) => [key, key === "step" ? String(lastRun) : ""]));
  let state = null;
  let chosen = [];

  const fold = (text) => text.normalize("NFC").toLowerCase();
  let texts = null;

  function valid(key, value) {
    const control = controls[key];
    if (control.tagName === "SELECT") return [...control.options].some((option) => option.value === value) ? value : standard[key];
    if (key === "heat") return value === "0" ? value : "";
    return value.slice(0, control.maxLength);
  }

  function readAddress() {
    const parts = page.state;
    const wanted = Object.fromEntries(Object.keys(controls).map((key) => [key, valid(key, parts.get(key) ?? standard[key])]));
    const at = parts.get("page") ?? "";
    return { ...wanted, page: /^[1-9]\d{0,5}$/.test(at) ? Number(at) : 1 };
  }

  function readControls() {
    const value = (key, control) => (key === "heat" ? (control.checked ? "" : "0") : valid(key, control.value));
    return { ...Object.fromEntries(Object.entries(controls).map(([key, control]) => [key, value(key, control)])), page: 1 };
  }

  function writeAddress() {
    const parts = Object.entries(state).filter(([key, value]) => value !== (key === "page" ? 1 : standard[key]));
    page.state = new URLSearchParams(parts);
  }

  const isRight = (row, run) => data.said[run][row] === data.true[row];
  const gain = (row, run) => data.p_true[run][row] - data.p_true[0][row];

  // From the first run to another: fixed, broken, still wrong, still right.
  function outcome(row, run) {
    if (isRight(row, run)) return isRight(row, 0) ? 3 : 0;
    return isRight(row, 0) ? 1 : 2;
  }

  function choose(wanted) {
    const run = Number(wanted.step);
    const words = fold(wanted.find).split(/\s+/).filter(Boolean);
    const tests = [];
    if (words.length) {
      texts ??= { paths: data.path.map(fold), classes: data.classes.map(fold) };
      const named = words.map((word) => texts.classes.map((name) => name.includes(word)));
      tests.push((row) => words.every((word, n) => (
        named[n][data.true[row]] || data.said.some((said) => named[n][said[row]]) || texts.paths[row].includes(word))));
    }
    if (wanted.outcome !== "") tests.push((row) => outcome(row, run) === Number(wanted.outcome));
    if (wanted.true !== "") tests.push((row) => data.true[row] === Number(wanted.true));
    if (wanted.pattern !== "") {
      const [of, number] = wanted.pattern.split("-").map(Number);
      tests.push((row) => data.pattern[of][row] === number);
    }
    if (wanted.maps !== "") tests.push((row) => data.heat[0][row] + data.heat[run][row] >= Number(wanted.maps));
    const rows = [];
    for (let row = 0; row < nRows; row += 1) if (tests.every((fits) => fits(row))) rows.push(row);
    const orders = {
      "": (a, b) => outcome(a, run) - outcome(b, run) || Math.abs(gain(b, run)) - Math.abs(gain(a, run)) || a - b,
      gain: (a, b) => gain(b, run) - gain(a, run) || a - b,
      loss: (a, b) => gain(a, run) - gain(b, run) || a - b,
      path: (a, b) => a - b,
    };
    return rows.sort(orders[wanted.sort]);
  }

  function make(tag, name, text) {
    return Object.assign(document.createElement(tag), { className: name, textContent: text });
  }

  function setName(element, name) {
    element.textContent = name;
    element.title = name;
  }

  // Runs of a card: the two of the step where it is not the last, else those of the pages.
  function runsOf(step) {
    return step === lastRun ? data.cards : [0, step];
  }

  function fillSide(side, row, run) {
    const stack = side.querySelector(".stack");
    const photo = stack.querySelector(".photo");
    const heat = stack.querySelector(".heat");
    const id = data.id[row];
    const view = data.photo[run][row];
    if (data.heat[run][row]) heat.src = `images/${id}-run-${run + 1}.png`;
    else if (view >= 0) heat.replaceWith(make("span", "stack-note", "no map"));
    else heat.remove();
    if (view >= 0) {
      photo.src = view ? `images/${id}-${view}.jpg` : `images/${id}.jpg`;
      photo.alt = `The image as ${shorten(data.labels[run], 40)} saw it`;
    } else {
      photo.replaceWith(make("span", "stack-empty", "no picture"));
    }
    side.querySelector(".change-label bdi").textContent = shorten(data.labels[run], 24);
    const right = isRight(row, run);
    const said = side.querySelector(".said");
    said.className = `said ${right ? "said-right" : "said-wrong"}`;
    setName(said.querySelector(".name"), data.classes[data.said[run][row]]);
    const value = said.querySelector("data");
    value.value = data.p[run][row];
    value.textContent = percent(data.p[run][row]);
    said.querySelector(".sr-only").textContent = right ? " right" : " wrong";
  }

  function makeCard(row, step) {
    const node = template.cloneNode(true);
    const link = node.querySelector("a");
    link.href = `images/${data.id[row]}.html`;
    link.title = data.path[row];
    const runs = runsOf(step);
    const sides = [...node.querySelectorAll(".change-side")];
    sides.slice(runs.length).forEach((side) => side.remove());
    node.querySelector(".change-sides").className = `change-sides sides-${runs.length}`;
    runs.forEach((run, n) => fillSide(sides[n], row, run));
    setName(node.querySelector(".change-true .name"), data.classes[data.true[row]]);
    setName(node.querySelector(".change-explained .name"), data.classes[data.explained[row]]);
    const number = outcome(row, step);
    const mark = node.querySelector(".mark");
    mark.textContent = data.outcomes[number];
    mark.className = `mark ${["mark-good", "mark-bad", "mark-none", "mark-none"][number]}`;
    node.querySelector(".card-path bdi").textContent = shorten(data.path[row], 48);
    return node;
  }

  function shorten(text, length) {
    if (text.length <= length) return text;
    const tail = Math.floor(length / 3);
    return `${text.slice(0, length - tail - 1).trimEnd()}…${text.slice(-tail).trimStart()}`;
  }

  function show(wanted, toTop) {
    state = wanted;
    for (const [key, control] of Object.entries(controls)) {
      if (key === "heat") control.checked = state.heat === "";
      else if (valid(key, control.value) !== state[key]) control.value = state[key];
    }
    chosen = choose(state);
    const nPages = Math.max(1, Math.ceil(chosen.length / PAGE));
    state.page = Math.min(state.page, nPages);
    const first = (state.page - 1) * PAGE;
    const rows = chosen.slice(first, first + PAGE);
    const step = Number(state.step);
    gallery.replaceChildren(...rows.map((row) => makeCard(row, step)));
    gallery.classList.toggle("of-four", runsOf(step).length > 2);
    const count = (number) => number.toLocaleString("en");
    const noun = nRows === 1 ? "image" : "images";
    byId("shown").textContent = chosen.length === nRows ? `All ${count(nRows)} ${noun}` : `${count(chosen.length)} of ${count(nRows)} ${noun}`;
    byId("no-match").hidden = chosen.length > 0;
    byId("turner").hidden = nPages === 1;
    byId("turn-where").textContent = `Page ${count(state.page)} of ${count(nPages)}`;
    byId("turn-back").disabled = state.page === 1;
    byId("turn-on").disabled = state.page === nPages;
    byId("clear").disabled = Object.keys(controls).every((key) => key === "sort" || key === "heat" || state[key] === standard[key]);
    if (toTop) byId("main").scrollIntoView();
  }

  function turn(by) {
    show({ ...state, page: state.page + by }, true);
    writeAddress();
  }

  let writing = 0;
  for (const control of Object.values(controls)) {
    control.addEventListener("input", () => {
      clearTimeout(writing);
      const wait = control.type === "search" ? 250 : 0;
      writing = setTimeout(() => {
        show(readControls());
        writeAddress();
      }, wait);
    });
  }
  for (const id of ["clear", "clear-empty"]) {
    byId(id).addEventListener("click", () => {
      show({ ...standard, sort: state.sort, heat: state.heat, page: 1 });
      writeAddress();
      controls.find.focus({ preventScroll: true });
    });
  }
  byId("turn-back").addEventListener("click", () => turn(-1));
  byId("turn-on").addEventListener("click", () => turn(1));
  page.onState(() => {
    const wanted = readAddress();
    if (Object.keys(wanted).some((key) => wanted[key] !== state[key])) show(wanted);
  });
  document.addEventListener("keydown", (event) => {
    if (!report.isFree(event)) return;
    if (event.key === "/") {
      event.preventDefault();
      controls.find.focus();
      controls.find.select();
    } else if (event.key === "n" && !byId("turn-on").disabled) turn(1);
    else if (event.key === "p" && !byId("turn-back").disabled) turn(-1);
  }, { signal: page.signal });
  page.signal.addEventListener("abort", () => clearTimeout(writing));
  page.addKeys([["/"], "searches"], [["n", "p"], "next and previous page"]);

  for (const element of document.querySelectorAll("[data-static]")) element.hidden = true;
  byId("filters").hidden = false;
  show(readAddress());
});
