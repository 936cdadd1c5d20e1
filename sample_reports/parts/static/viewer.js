// The page of an error: overlays with opacity and colours, the viewer of all layers, the mask.
// Its state is in the address, so that a view can be sent, and goes along to the next error. There
// `from` is the state of the gallery that the reader came from.
"use strict";

onPage(async (page) => {
  const KEYS = ["layer", "role", "colours", "opacity", "threshold", "speed", "from"];
  const byId = (id) => document.getElementById(id);
  if (!document.querySelector("[data-error]")) return;
  const links = startLinks();
  const chunk = byId("maps");
  const photo = document.querySelector(".views .photo");
  if (!chunk || !photo) return;
  const maps = await readMaps(JSON.parse(chunk.textContent));
  const last = maps.layers.length - 1;
  const lastOwn = Math.max(0, maps.layers.findLastIndex((layer) => layer.name !== "fused"));
  const start = { layer: last, role: "predicted", colours: "inferno", opacity: 85, threshold: 70, speed: 10 };
  let state = { ...start };
  let frame = null;
  let writing = null;
  let written = { at: 0, text: null };

  const names = Object.fromEntries(Object.keys(maps.roles).map((role) => (
    [role, document.querySelector(`.views [data-role=${role}]`).closest("figure").querySelector("bdi").textContent])));
  const viewer = byId("viewer");
  buildViewer();
  const views = [...document.querySelectorAll("[data-view]")].map((element) => ({
    element,
    canvas: addCanvas(element),
    role: element.dataset.role,
    layer: element.dataset.layer,
  })).filter((view) => view.canvas);
  const maskElement = viewer.querySelector("[data-mask]");
  const mask = { element: maskElement, canvas: addCanvas(maskElement) };
  const legend = [...document.querySelectorAll("[data-legend]")].map((element) => (
    element.appendChild(document.createElement("canvas"))));
  const { buttons: strip, stages } = buildStrip();
  buildStageBar();

  // The state in the address, without what is none of this page's, such as the name of a place.
  function viewState() {
    const parts = page.state;
    for (const key of [...parts.keys()]) if (!KEYS.includes(key)) parts.delete(key);
    return parts;
  }

  // Links to other errors take the view along, the one to the gallery what was chosen there.
  function startLinks() {
    const { error } = document.querySelector("[data-error]").dataset;
    const put = (link, text) => link?.setAttribute("href", link.getAttribute("href").match(/^(?:#\/)?[^#]*/)[0] + (text && `#${text}`));
    const relink = () => {
      const parts = viewState();
      const gallery = new URLSearchParams(parts.get("from") ?? "");
      gallery.set("at", error);
      put(byId("up"), String(gallery));
      for (const link of document.querySelectorAll("[data-error-link]")) put(link, String(parts));
    };
    const turn = { ArrowLeft: "previous-error", ArrowRight: "next-error", Escape: "up" };
    document.addEventListener("keydown", (event) => {
      const taken = event.key === "Escape" ? "select, dialog" : "input, select, button, dialog, #viewer, .scroll";
      if (report.isFree(event, taken)) byId(turn[event.key])?.click();
    }, { signal: page.signal });
    page.addKeys([["←", "→"], "error before, error after"], [["Esc"], "back to all errors"]);
    page.onState(relink);
    relink();
    return { relink };
  }

  function addCanvas(element) {
    if (!element.querySelector(".photo")) return null;
    element.querySelector(".heat")?.remove();
    const canvas = make("canvas", { "aria-hidden": "true" });
    element.append(canvas);
    return { node: canvas, height: Number(photo.getAttribute("height")), width: Number(photo.getAttribute("width")) };
  }

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children);
    return element;
  }

  // What is of no use without a script is made here: the controls of the overlays and the viewer.
  function buildViewer() {
    document.querySelector(".section-head").append(make("div", { class: "tools" },
      make("label", {}, "Opacity ", make("input", { type: "range", id: "opacity", min: 0, max: 100, step: 5, autocomplete: "off" })),
      make("label", {}, "Colours ", make("select", { id: "colours", autocomplete: "off" }, ...Object.keys(COLOURS).map((key) => make("option", {}, key))))));
    const picture = (data, label, title, below) => {
      const shown = photo.cloneNode();
      shown.alt = label;
      return make("figure", { class: "view" }, make("div", { class: "stack", ...data }, shown), make("figcaption", {}, make("strong", {}, ...title), make("span", { class: "muted" }, ...below)));
    };
    const range = (id, attributes, ...label) => make("label", { class: "wide-range" }, make("span", {}, ...label), make("input", { type: "range", id, autocomplete: "off", ...attributes }));
    const button = (id, text, attributes = {}) => make("button", { type: "button", class: "button", id, ...attributes }, text);
    const roles = Object.entries(names).map(([role, text]) => make("label", {}, make("input", { type: "radio", name: "role", value: role, autocomplete: "off" }), make("span", {}, make("bdi", {}, text)), make("small", {}, role)));
    const speeds = [[4, "slow"], [10, "normal"], [25, "fast"]].map(([value, text]) => make("option", { value }, text));
    const layer = make("div", { class: "layer-choice" },
      make("p", { class: "layer-name" }, make("strong", { id: "layer-name" }), make("span", { class: "muted", id: "layer-facts" })),
      make("div", {}, range("layer", { min: 0, max: last }, "Layer"), make("div", { class: "stage-bar", id: "stage-bar", "aria-hidden": "true" })),
      make("div", { class: "buttons" }, button("layer-previous", "←", { "aria-label": "Previous layer" }), button("play", "Play", { class: "button button-strong" }), button("layer-next", "→", { "aria-label": "Next layer" }), make("select", { id: "speed", "aria-label": "Speed", autocomplete: "off" }, ...speeds)));
    const strip = make("div", { id: "strip", class: "strip", role: "group", "aria-label": "All layers" });
    layer.hidden = strip.hidden = last === 0;
    viewer.append(make("div", { class: "viewer" },
      picture({ "data-view": "", "data-role": "chosen", "data-layer": "chosen" }, "The image under the chosen layer's map", ["What speaks for “", make("bdi", { class: "name", "data-chosen-class": "" }), "”"], [make("span", { id: "layer-number" })]),
      picture({ "data-mask": "" }, "The most important pixels of the image", ["Most important pixels"], [make("output", { id: "mask-share", for: "threshold" })]),
      make("div", { class: "viewer-controls" },
        make("fieldset", { class: "choice" }, make("legend", {}, "For the class"), ...roles),
        layer,
        range("threshold", { min: 5, max: 95, step: 5 }, "Important from ", make("output", { id: "threshold-text", for: "threshold" }), " of the peak"))), strip);
    viewer.hidden = false;
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
      const row = make("div", { class: "strip-maps" });
      for (const n of members) {
        const button = make("button", { type: "button", class: "strip-map", title: `${n + 1}. ${maps.layers[n].name}`, "aria-label": `Layer ${n + 1}, ${maps.layers[n].name}` }, make("canvas"));
        button.addEventListener("click", () => { stop(); update({ layer: n }); });
        buttons[n] = row.appendChild(button);
      }
      const isFused = key === "fused";
      const size = isFused ? ["fused map"] : [`${first.ownHeight} × ${first.ownWidth}`, `${members.length} ${members.length === 1 ? "map" : "maps"}`];
      const label = make("div", { class: "strip-label" }, make("b", {}, isFused ? "All layers" : `Stage ${stages.length + 1}`), ...size.map((text) => make("span", {}, text)));
      const stage = make("div", { class: "strip-stage" }, label, row);
      stages.push({ element: stage, members, name: key === "fused" ? "" : String(stages.length + 1) });
    }
    byId("strip").replaceChildren(...stages.map((stage) => stage.element));
    return { buttons, stages };
  }

  // Under the slider: as wide as the stage has layers.
  function buildStageBar() {
    byId("stage-bar").replaceChildren(...stages.map((stage) => {
      stage.part = make("span", {}, stage.name);
      stage.part.style.flexGrow = stage.members.length;
      return stage.part;
    }));
  }

  function drawViews(previous) {
    for (const view of views) {
      const role = view.role === "chosen" ? state.role : view.role;
      const layer = { chosen: state.layer, fused: last, last: lastOwn }[view.layer];
      const { node, height, width } = view.canvas;
      const share = shareOfScale(maps, role, layer);
      const shown = `${role} ${layer}`;
      if (view.shown !== shown) view.heat = enlarge(maps.roles[role][layer], share, height, width);
      else if (previous?.colours === state.colours && previous?.opacity === state.opacity) continue;
      view.shown = shown;
      view.element.style.setProperty("--grey", Math.min(1, state.opacity / 50));
      paintHeat(node, view.heat, height, width, state.colours, state.opacity / 100);
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
    byId("mask-share").textContent = empty ? "none" : `${percent(seen)} of the image`;
    byId("threshold-text").textContent = `${state.threshold}\u202f%`;
  }

  // An occlusion map stands alone: it is of no layer.
  function whatIsEmpty(ofAll) {
    if (last === 0) return "Nothing";
    return ofAll ? "No layer" : "Nothing in this layer";
  }

  function sayEmpty(element, empty, what, name) {
    element.querySelector(".view-empty")?.remove();
    if (!empty) return;
    element.append(make("span", { class: "view-empty" }, `${what} speaks for “`, make("bdi", {}, name), "”"));
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
    for (const stage of stages) {
      const isCurrent = stage.members.includes(state.layer);
      stage.element.classList.toggle("is-current", isCurrent);
      stage.part.classList.toggle("is-current", isCurrent);
    }
    const layer = maps.layers[state.layer];
    const stage = stages.find(({ members }) => members.includes(state.layer)).name;
    byId("layer-name").textContent = layer.name === "fused" ? "All layers, fused" : layer.name.replaceAll("/", "/\u200b");
    byId("layer-facts").textContent = `${state.layer + 1} of ${maps.layers.length} · ${stage ? `stage ${stage} · ` : ""}${layer.kind} · ${layer.ownHeight}\u00a0×\u00a0${layer.ownWidth}`;
    byId("layer-number").textContent = state.layer === last ? (last > 0 ? "all layers" : "") : `layer ${state.layer + 1} of ${maps.layers.length}`;
    byId("layer").setAttribute("aria-valuetext", `${state.layer + 1}${stage ? `, stage ${stage}` : ""}, ${layer.name}`);
  }

  function showControls() {
    byId("layer").value = state.layer;
    byId("opacity").value = state.opacity;
    byId("colours").value = state.colours;
    byId("threshold").value = state.threshold;
    byId("speed").value = state.speed;
    document.querySelector(`[name=role][value=${state.role}]`).checked = true;
    document.querySelector("[data-chosen-class]").textContent = names[state.role];
  }

  function draw(previous) {
    showControls();
    markLayer();
    drawViews(previous);
    drawMask();
    if (!previous || previous.role !== state.role || previous.colours !== state.colours) drawStrip();
    if (!previous || previous.colours !== state.colours) drawLegend();
  }

  function update(change) {
    const previous = state;
    state = { ...state, ...change };
    draw(previous);
    if (frame === null) write();
  }

  // Browsers refuse an address that changes too often, as it would under a moving slider.
  function write() {
    clearTimeout(writing);
    const wait = Math.max(0, written.at + 200 - performance.now());
    if (wait > 0) writing = setTimeout(writeHash, wait);
    else writeHash();
  }

  // The address holds only what differs from the start.
  function writeHash() {
    clearTimeout(writing);
    const parts = new URLSearchParams();
    for (const key of Object.keys(start)) if (state[key] !== start[key]) parts.set(key, state[key]);
    const from = page.state.get("from");
    if (from) parts.set("from", from);
    written = { at: performance.now(), text: String(parts) };
    page.state = parts;
    links.relink();
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
      speed: [4, 25].includes(whole("speed", 4, 25)) ? whole("speed", 4, 25) : start.speed,
    };
  }

  function rest() {
    cancelAnimationFrame(frame);
    frame = null;
  }

  function stop() {
    if (frame === null) return;
    rest();
    byId("play").textContent = "Play";
    write();
  }

  // Goes round through the layers, `speed` of them a second. Never starts by itself.
  function play() {
    if (frame !== null) { stop(); return; }
    byId("play").textContent = "Pause";
    let shown = performance.now();
    const next = (now) => {
      const steps = Math.floor(((now - shown) * state.speed) / 1000);
      frame = requestAnimationFrame(next);
      if (steps < 1) return;
      shown += (1000 * steps) / state.speed;
      update({ layer: (state.layer + steps) % maps.layers.length });
    };
    frame = requestAnimationFrame(next);
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

  byId("speed").addEventListener("change", (event) => update({ speed: Number(event.target.value) }));

  // Keys of the viewer. A button of the strip is chosen by moving to it, so Space is free to play.
  const ownKeys = "select, input[type=radio], button:not(.strip-map)";
  const moves = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), Home: () => step(-state.layer), End: () => step(last - state.layer) };
  viewer.addEventListener("keydown", (event) => {
    if (!report.isFree(event, ownKeys)) return;
    if (event.key === " ") play();
    else if (moves[event.key] && event.target.type !== "range") moves[event.key]();
    else return;
    event.preventDefault();
    if (event.target.matches(".strip-map")) strip[state.layer].focus();
  });
  viewer.addEventListener("keyup", (event) => {
    if (event.key === " " && event.target.matches(".strip-map")) event.preventDefault();
  });
  document.addEventListener("keydown", (event) => {
    const by = { ",": -1, "[": -1, ".": 1, "]": 1 }[event.key];
    if (by && last > 0 && report.isFree(event, "select, textarea, dialog")) step(by);
  }, { signal: page.signal });
  if (last > 0) {
    page.addKeys([[",", "."], "layer before, layer after"], [["Space"], "play or pause, in the viewer"]);
  }
  document.addEventListener("click", () => { if (frame === null) writeHash(); }, { capture: true, signal: page.signal });

  page.onState(() => {
    const previous = state;
    // Word of what was written here may come late, when the view has moved on.
    const text = report.address.read();
    if (text === written.text || byId(text)) return;
    written.text = null;
    const wanted = readHash();
    if (Object.keys(start).some((key) => wanted[key] !== state[key])) {
      stop();
      state = wanted;
      draw(previous);
    }
  });

  state = readHash();
  draw(null);
  page.signal.addEventListener("abort", () => { rest(); clearTimeout(writing); });
});
