// The page of an error: overlays with opacity and colours, the viewer of all layers, the mask.
// Its state is in the URL's hash, so that a view can be sent.
"use strict";

onPage(async (page) => {
  const chunk = document.getElementById("maps");
  if (!chunk) return;
  const maps = await readMaps(JSON.parse(chunk.textContent));
  const last = maps.layers.length - 1;
  const lastOwn = Math.max(0, maps.layers.findLastIndex((layer) => layer.name !== "fused"));
  const byId = (id) => document.getElementById(id);
  const start = { layer: last, role: "predicted", colours: "inferno", opacity: 85, threshold: 70 };
  let state = { ...start };
  let timer = null;

  const views = [...document.querySelectorAll("[data-view]")].map((element) => ({
    element,
    canvas: addCanvas(element),
    role: element.dataset.role,
    layer: element.dataset.layer,
  })).filter((view) => view.canvas);
  const maskElement = document.querySelector("[data-mask]");
  const mask = { element: maskElement, canvas: addCanvas(maskElement) };
  const legend = [...document.querySelectorAll("[data-legend]")].map((element) => (
    element.appendChild(document.createElement("canvas"))));
  const names = {};
  for (const input of document.querySelectorAll("[name=role]")) {
    names[input.value] = input.parentElement.querySelector("bdi").textContent;
  }
  const strip = buildStrip();

  function addCanvas(element) {
    const photo = element.querySelector(".photo");
    if (!photo) return null;
    element.querySelector(".heat")?.remove();
    const canvas = document.createElement("canvas");
    canvas.setAttribute("aria-hidden", "true");
    element.append(canvas);
    return { node: canvas, height: Number(photo.getAttribute("height")), width: Number(photo.getAttribute("width")) };
  }

  // The strip of all maps, grouped by stage. One button is in the tab order; arrows move from there.
  function buildStrip() {
    const groups = new Map();
    maps.layers.forEach((layer, n) => {
      const key = layer.name === "fused" ? "fused" : layer.stage;
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(n);
    });
    const buttons = [];
    const stages = [];
    for (const [key, members] of groups) {
      const first = maps.layers[members[0]];
      const stage = make("div", "strip-stage");
      const label = stage.appendChild(make("div", "strip-label"));
      label.appendChild(make("b")).textContent = key === "fused" ? "All layers" : `Stage ${stages.length + 1}`;
      label.append(key === "fused" ? "fused map" : `${first.ownHeight} × ${first.ownWidth} · ${members.length} ${members.length === 1 ? "map" : "maps"}`);
      const row = stage.appendChild(make("div", "strip-maps"));
      for (const n of members) {
        const button = row.appendChild(make("button", "strip-map"));
        button.type = "button";
        button.title = `${n + 1}. ${maps.layers[n].name}`;
        button.setAttribute("aria-label", `Layer ${n + 1}, ${maps.layers[n].name}`);
        button.append(document.createElement("canvas"));
        button.addEventListener("click", () => { stop(); update({ layer: n }); });
        buttons[n] = button;
      }
      stages.push(stage);
    }
    byId("strip").replaceChildren(...stages);
    return buttons;
  }

  function make(tag, name = "") {
    const element = document.createElement(tag);
    if (name) element.className = name;
    return element;
  }

  function drawViews() {
    for (const view of views) {
      const role = view.role === "chosen" ? state.role : view.role;
      const layer = { chosen: state.layer, fused: last, last: lastOwn }[view.layer];
      const share = shareOfScale(maps, role, layer);
      const { node, height, width } = view.canvas;
      const heat = enlarge(maps.roles[role][layer], share, height, width);
      view.element.style.setProperty("--grey", Math.min(1, state.opacity / 50));
      paintHeat(node, heat, height, width, state.colours, state.opacity / 100);
      node.hidden = share === 0;
      sayEmpty(view.element, share === 0, whatIsEmpty(layer === last && view.layer !== "chosen"), names[role]);
    }
  }

  function drawMask() {
    const map = maps.roles[state.role][state.layer];
    const empty = !(map.peak > 0);
    const { node, height, width } = mask.canvas;
    const seen = paintMask(node, enlarge(map, 1, height, width), height, width, state.threshold / 100);
    node.hidden = empty;
    sayEmpty(mask.element, empty, whatIsEmpty(false), names[state.role]);
    byId("mask-share").textContent = empty ? "none" : `${shareText(seen)} of the image`;
    byId("threshold-text").textContent = `${state.threshold}\u202f%`;
  }

  function shareText(share) {
    const text = (100 * share).toFixed(1);
    if (Number(text) === 0 && share > 0) return "<\u202f0.1\u202f%";
    if (Number(text) >= 100 && share < 1) return ">\u202f99.9\u202f%";
    return `${text}\u202f%`;
  }

  // An occlusion map stands alone: it is of no layer.
  function whatIsEmpty(ofAll) {
    if (last === 0) return "Nothing";
    return ofAll ? "No layer" : "Nothing in this layer";
  }

  function sayEmpty(element, empty, what, name) {
    element.querySelector(".view-empty")?.remove();
    if (!empty) return;
    const note = element.appendChild(make("span", "view-empty"));
    note.append(`${what} speaks for “`, Object.assign(make("bdi"), { textContent: name }), "”");
  }

  function drawStrip() {
    strip.forEach((button, n) => {
      const share = shareOfScale(maps, state.role, n);
      button.classList.toggle("is-empty", share === 0);
      paintMap(button.firstChild, maps.roles[state.role][n], share, state.colours);
    });
  }

  function drawLegend() {
    const ramp = { values: Uint8Array.from({ length: 256 }, (_, n) => n), height: 1, width: 256 };
    for (const canvas of legend) paintMap(canvas, ramp, 1, state.colours);
  }

  function markLayer() {
    strip.forEach((button, n) => {
      button.tabIndex = n === state.layer ? 0 : -1;
      if (n === state.layer) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    });
    const layer = maps.layers[state.layer];
    byId("layer-name").textContent = layer.name === "fused" ? "All layers, fused" : layer.name;
    byId("layer-facts").textContent = `${state.layer + 1} of ${maps.layers.length} · ${layer.kind} · ${layer.ownHeight} × ${layer.ownWidth}`;
    byId("layer").setAttribute("aria-valuetext", `${state.layer + 1}, ${layer.name}`);
  }

  function showControls() {
    byId("layer").value = state.layer;
    byId("opacity").value = state.opacity;
    byId("colours").value = state.colours;
    byId("threshold").value = state.threshold;
    document.querySelector(`[name=role][value=${state.role}]`).checked = true;
    document.querySelector("[data-chosen-class]").textContent = names[state.role];
  }

  function draw(previous) {
    showControls();
    markLayer();
    drawViews();
    drawMask();
    if (!previous || previous.role !== state.role || previous.colours !== state.colours) drawStrip();
    if (!previous || previous.colours !== state.colours) drawLegend();
  }

  function update(change) {
    const previous = state;
    state = { ...state, ...change };
    draw(previous);
    if (!timer) writeHash();
  }

  // The hash holds only what differs from the start.
  function writeHash() {
    const parts = new URLSearchParams();
    for (const key of Object.keys(start)) if (state[key] !== start[key]) parts.set(key, state[key]);
    page.state = parts;
  }

  function readHash() {
    const parts = page.state;
    const whole = (key, low, high) => {
      const value = Number.parseInt(parts.get(key) ?? "", 10);
      return Number.isNaN(value) ? start[key] : Math.min(Math.max(value, low), high);
    };
    return {
      layer: whole("layer", 0, last),
      role: Object.hasOwn(maps.roles, parts.get("role")) ? parts.get("role") : start.role,
      colours: Object.hasOwn(COLOURS, parts.get("colours")) ? parts.get("colours") : start.colours,
      opacity: whole("opacity", 0, 100),
      threshold: whole("threshold", 5, 95),
    };
  }

  function stop() {
    if (!timer) return;
    clearInterval(timer);
    timer = null;
    byId("play").textContent = "Play";
    byId("play").setAttribute("aria-pressed", "false");
    writeHash();
  }

  function play() {
    if (timer) { stop(); return; }
    byId("play").textContent = "Pause";
    byId("play").setAttribute("aria-pressed", "true");
    timer = setInterval(() => update({ layer: (state.layer + 1) % maps.layers.length }), 120);
    if (state.layer === last) update({ layer: 0 });
  }

  function step(by) {
    stop();
    update({ layer: (state.layer + by + maps.layers.length) % maps.layers.length });
  }

  byId("play").addEventListener("click", play);
  byId("layer-previous").addEventListener("click", () => step(-1));
  byId("layer-next").addEventListener("click", () => step(1));
  byId("layer").addEventListener("input", (event) => { stop(); update({ layer: Number(event.target.value) }); });
  byId("opacity").addEventListener("input", (event) => update({ opacity: Number(event.target.value) }));
  byId("threshold").addEventListener("input", (event) => update({ threshold: Number(event.target.value) }));
  byId("colours").addEventListener("change", (event) => update({ colours: event.target.value }));
  for (const input of document.querySelectorAll("[name=role]")) {
    input.addEventListener("change", () => update({ role: input.value }));
  }

  byId("strip").addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    step(by);
    strip[state.layer].focus();
  });

  // Arrows turn the pages where nothing else wants them; Escape goes back to all errors.
  document.addEventListener("keydown", (event) => {
    if (!report.isFree(event, "input, select, button, dialog, #viewer")) return;
    const id = { ArrowLeft: "previous-error", ArrowRight: "next-error", Escape: "up" }[event.key];
    if (id) byId(id)?.click();
  }, { signal: page.signal });

  page.onState(() => {
    const previous = state;
    const wanted = readHash();
    if (Object.keys(start).some((key) => wanted[key] !== state[key])) {
      stop();
      state = wanted;
      draw(previous);
    }
  });

  for (const element of document.querySelectorAll("[data-script]")) element.hidden = false;
  state = readHash();
  draw(null);
  page.signal.addEventListener("abort", stop);
});
