// The threshold slider: shows the row of the stored sweep that it stands on, and keeps it in the address.
"use strict";

onPage((page) => {
  const panel = document.getElementById("threshold-panel");
  if (!panel) return;
  const slider = document.getElementById("threshold");
  const rows = [...document.querySelectorAll("#sweep tbody tr")];
  const thresholds = rows.map((row) => Number(row.cells[0].querySelector("data").value));
  const inUse = rows.findIndex((row) => row.classList.contains("in-use"));
  const shown = [...panel.querySelectorAll("[data-column]")];
  const moving = [...document.querySelectorAll("#threshold-charts svg")].map(addRule).filter(Boolean);

  // A second line in a chart, beside the one that marks the threshold in use and shows the scale.
  function addRule(svg) {
    const fixed = svg.querySelector(".mark-rule.role-mark line");
    const place = fixed?.getAttribute("transform")?.match(/translate\(([\d.]+),([\d.]+)\)/);
    if (!place) return null;
    const rule = fixed.cloneNode();
    rule.removeAttribute("stroke-dasharray");
    rule.setAttribute("stroke", "var(--accent)");
    fixed.after(rule);
    const width = Number(place[1]) / thresholds[inUse];
    return (threshold) => rule.setAttribute("transform", `translate(${threshold * width},${place[2]})`);
  }

  function show(n) {
    slider.value = n;
    for (const place of shown) {
      place.replaceChildren(...[...rows[n].cells[place.dataset.column].childNodes].map((node) => node.cloneNode(true)));
      place.querySelector(".sr-only")?.remove();
    }
    const [threshold, , falsePositives, , falseNegatives] = [...rows[n].cells].map((cell) => cell.querySelector("data")?.textContent);
    slider.setAttribute("aria-valuetext", `${threshold}${n === inUse ? ", in use" : ""}: ${falsePositives} false positives, ${falseNegatives} false negatives`);
    document.getElementById("threshold-is-in-use").hidden = n !== inUse;
    document.getElementById("threshold-back").disabled = n === inUse;
    for (const move of moving) move(thresholds[n]);
  }

  // The row whose threshold is nearest to the one in the address; without one, the row in use.
  function read() {
    const wanted = Number.parseFloat(page.state.get("threshold") ?? "");
    if (Number.isNaN(wanted)) return inUse;
    const away = thresholds.map((threshold) => Math.abs(threshold - wanted));
    return away.indexOf(Math.min(...away));
  }

  let rest = 0;
  let written = null;
  function choose(n) {
    show(n);
    clearTimeout(rest);
    rest = setTimeout(() => {
      written = n === inUse ? "" : String(new URLSearchParams({ threshold: thresholds[n] }));
      page.state = written;
    }, 120);
  }

  slider.max = rows.length - 1;
  slider.addEventListener("input", () => choose(Number(slider.value)));
  document.getElementById("threshold-back").addEventListener("click", () => {
    slider.focus();
    choose(inUse);
  });
  page.signal.addEventListener("abort", () => clearTimeout(rest));
  page.onState(() => {
    if (String(page.state) === written) return; // the slider may have moved on since
    written = null;
    clearTimeout(rest);
    show(read());
  });
  panel.hidden = false;
  show(read());
});
