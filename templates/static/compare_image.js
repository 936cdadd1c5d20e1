// Paints the maps of one image over all runs: overlays, what is above a threshold, the animation.
"use strict";

onPage(async (page) => {
  const source = document.getElementById("image-maps");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const bytes = await unpack(data.maps);
  if (page.signal.aborted) return;
  const byId = (id) => document.getElementById(id);
  const colours = "inferno";
  const opacity = 0.85;

  // Maps by class and run, heats of 0 to 255; how they are packed is said in compare_image.py.
  let start = 0;
  const maps = data.classes.map((found) => found.runs.map((size) => {
    if (!size) return null;
    const [height, width, share] = size;
    const values = Float32Array.from(addUp(bytes, start, { height, width, steps: 255 }));
    start += height * width;
    return { values, height, width, share };
  }));

  function canvasOver(stack, old) {
    const canvas = document.createElement("canvas");
    stack.querySelector(old)?.remove();
    stack.append(canvas);
    return canvas;
  }

  // Pixels that a map is painted with: those of the picture, or the map's own where there is none.
  function sizeOf(stack, map) {
    const photo = stack.querySelector(".photo");
    return photo ? [Number(photo.getAttribute("height")), Number(photo.getAttribute("width"))] : [map.height * 4, map.width * 4];
  }

  for (const stack of document.querySelectorAll("[data-overlay]")) {
    const map = maps[stack.dataset.overlay]?.[stack.dataset.run];
    if (!map) continue;
    const [height, width] = sizeOf(stack, map);
    paintHeat(canvasOver(stack, ".heat"), enlarge(map, map.share, height, width), height, width, colours, opacity);
  }

  // The threshold

  const segments = [...document.querySelectorAll("[data-segment]")].flatMap((stack) => {
    const run = stack.dataset.segment;
    const map = maps[0][run];
    if (!map) return [];
    const [height, width] = sizeOf(stack, map);
    return [{ run, height, width, heat: enlarge(map, 1, height, width), canvas: canvasOver(stack, ".mask") }];
  });

  function segment(percent) {
    byId("threshold-value").textContent = `${percent}\u202f%`;
    for (const { run, height, width, heat, canvas } of segments) {
      const seen = paintMask(canvas, heat, height, width, percent / 100);
      document.querySelector(`[data-seen="${run}"]`).textContent = `${(100 * seen).toFixed(0)}\u202f%`;
    }
  }

  const threshold = byId("threshold");
  if (threshold) {
    byId("threshold-tools").hidden = false;
    threshold.addEventListener("input", () => segment(Number(threshold.value)));
    segment(Number(threshold.value));
  }

  // The animation: it never starts by itself, and blends only if motion is welcome.

  const animation = byId("animation");
  const runs = maps[0].flatMap((map, run) => (map ? [run] : []));
  if (animation && runs.length > 1) {
    const STILL = 1100;
    const BLEND = 600;
    const stage = byId("stage");
    const [height, width] = sizeOf(stage, maps[0][runs[0]]);
    const heats = runs.map((run) => enlarge(maps[0][run], maps[0][run].share, height, width));
    const canvas = canvasOver(stage, ".heat");
    stage.classList.add("has-map");
    const slider = byId("stage-run");
    const play = byId("play");
    const labels = runs.map((run) => document.querySelector(`[data-overlay="0"][data-run="${run}"]`).parentElement.querySelector(".run-words").cloneNode(true));
    const isCalm = matchMedia("(prefers-reduced-motion: reduce)");
    slider.max = runs.length - 1;
    animation.hidden = false;
    let frame = 0;
    let timer = 0;

    function paint(heat) {
      paintHeat(canvas, heat, height, width, colours, opacity);
    }

    function rest(n) {
      paint(heats[n]);
      slider.value = n;
      slider.setAttribute("aria-valuetext", labels[n].querySelector("strong").textContent);
      byId("stage-label").replaceChildren(...labels[n].cloneNode(true).childNodes);
      byId("stage-numbers").replaceChildren(number("Run", `${n + 1} of ${runs.length} with a map`));
    }

    function number(term, text) {
      const line = document.createElement("div");
      line.appendChild(document.createElement("dt")).textContent = term;
      line.appendChild(document.createElement("dd")).textContent = text;
      return line;
    }

    function blend(from, to, done) {
      const begin = performance.now();
      const mixed = new Uint8Array(heats[from].length);
      const draw = (now) => {
        const share = Math.min(1, (now - begin) / BLEND);
        for (let n = 0; n < mixed.length; n += 1) mixed[n] = Math.round(heats[from][n] * (1 - share) + heats[to][n] * share);
        paint(mixed);
        if (share < 1) frame = requestAnimationFrame(draw);
        else done();
      };
      frame = requestAnimationFrame(draw);
    }

    function stop() {
      clearTimeout(timer);
      cancelAnimationFrame(frame);
      timer = 0;
      play.textContent = "Play";
      play.setAttribute("aria-pressed", "false");
    }

    function next() {
      const from = Number(slider.value);
      const to = (from + 1) % runs.length;
      const arrive = () => {
        rest(to);
        timer = setTimeout(next, STILL);
      };
      if (isCalm.matches) arrive();
      else blend(from, to, arrive);
    }

    play.setAttribute("aria-pressed", "false");
    play.addEventListener("click", () => {
      if (timer) {
        const at = Number(slider.value);
        stop();
        rest(at);
      } else {
        play.textContent = "Pause";
        play.setAttribute("aria-pressed", "true");
        timer = setTimeout(next, 0);
      }
    });
    slider.addEventListener("input", () => {
      stop();
      rest(Number(slider.value));
    });
    page.signal.addEventListener("abort", stop);
    rest(0);
    document.addEventListener("keydown", (event) => {
      if (event.key === " " && report.isFree(event, "input, select, textarea, dialog, button, a, summary")) {
        event.preventDefault();
        play.click();
      }
    }, { signal: page.signal });
    page.addKeys([["Space"], "plays and pauses"]);
  }

  document.addEventListener("keydown", (event) => {
    if (!report.isFree(event)) return;
    const id = { ArrowLeft: "previous-image", ArrowRight: "next-image", u: "up" }[event.key];
    if (id) byId(id)?.click();
  }, { signal: page.signal });
  page.addKeys([["←", "→"], "previous and next image"], [["u"], "all images"]);
});
