// The list of confusions, when there are too many for a table: searches, orders, shows 100 at a time.
"use strict";

onPage((page) => {
  const chunk = document.getElementById("confusion-data");
  if (!chunk) return;
  const data = JSON.parse(chunk.textContent);
  const byId = (id) => document.getElementById(id);
  const WINDOW = 100;
  const body = document.querySelector(".pair-table tbody");
  const blank = byId("confusion-row").content.querySelector("tr");
  const fields = { find: byId("find"), side: byId("side"), order: byId("order") };
  const words = Object.fromEntries(Object.entries(data.names).map(([key, name]) => [key, name.toLowerCase()]));
  const shares = data.count.map((count, n) => count / data.support[data.true[n]]);
  let chosen = [];
  let shown = 0;
  let written = null;

  function choose({ find, side, order }) {
    const wanted = find.trim().toLowerCase();
    const fits = (key, n) => (side === "" || side === key) && words[data[key][n]].includes(wanted);
    const rows = [...data.count.keys()].filter((n) => fits("true", n) || fits("predicted", n));
    return order === "share" ? rows.sort((a, b) => shares[b] - shares[a] || a - b) : rows;
  }

  function shorten(name) {
    const letters = [...name];
    if (letters.length <= 60) return name;
    return `${letters.slice(0, 39).join("").trimEnd()}…${letters.slice(-20).join("").trimStart()}`;
  }

  function makeRow(n) {
    const row = blank.cloneNode(true);
    row.querySelector("a").href = `errors.html#true=${data.true[n]}&predicted=${data.predicted[n]}`;
    row.querySelectorAll("bdi").forEach((element, side) => {
      const name = data.names[data[side ? "predicted" : "true"][n]];
      element.textContent = shorten(name);
      if (element.textContent !== name) element.title = name;
    });
    const [count, share] = row.querySelectorAll("data");
    count.value = data.count[n];
    count.textContent = data.count[n].toLocaleString("en");
    share.value = shares[n];
    share.textContent = percent(shares[n]);
    row.querySelector(".interval").textContent = `${barePercent(data.low[n])}–${barePercent(data.high[n])}\u202f%`;
    return row;
  }

  function showMore() {
    const end = Math.min(shown + WINDOW, chosen.length);
    const fresh = document.createDocumentFragment();
    for (; shown < end; shown += 1) fresh.append(makeRow(chosen[shown]));
    body.append(fresh);
    byId("more").hidden = shown === chosen.length;
    const number = (value) => value.toLocaleString("en");
    byId("found").textContent = chosen.length === data.count.length && shown === chosen.length
      ? `All ${number(shown)}`
      : `${number(shown)} of ${number(chosen.length)} shown`;
  }

  // What this script wrote itself is not read back: more may have been typed since.
  function readState() {
    for (const [key, field] of Object.entries(fields)) {
      const value = page.state.get(key) ?? "";
      const isKnown = !field.options || [...field.options].some((option) => option.value === value);
      field.value = isKnown ? value : "";
    }
  }

  function show() {
    if (String(page.state) !== written) {
      written = null;
      readState();
    }
    chosen = choose(read());
    shown = 0;
    body.replaceChildren();
    showMore();
    byId("none-found").hidden = chosen.length > 0;
    document.querySelector(".pair-table").hidden = chosen.length === 0;
  }

  function read() {
    return Object.fromEntries(Object.entries(fields).map(([key, field]) => [key, field.value]));
  }

  function write() {
    const state = new URLSearchParams(Object.entries(read()).filter(([, value]) => value !== ""));
    written = String(state);
    page.state = state;
  }

  let rest = 0;
  fields.find.addEventListener("input", () => {
    clearTimeout(rest);
    rest = setTimeout(write, 120);
  });
  page.signal.addEventListener("abort", () => clearTimeout(rest));
  fields.side.addEventListener("change", write);
  fields.order.addEventListener("change", write);
  byId("more").addEventListener("click", showMore);
  page.onState(show);
  for (const element of document.querySelectorAll("[data-static]")) element.hidden = true;
  byId("confusion-search").hidden = false;
  show();
});
