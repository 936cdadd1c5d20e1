// The frame of every page: starts its scripts, keeps their state in the address, lists the keys.
// A script says onPage(start) once; `start` gets the page each time one is shown.
"use strict";

const report = (() => {
  const starts = [];
  let current = null;

  // What comes after "#" belongs to the page: its state as key=value, or the name of a place.
  // In a report that is one file the name of the page is in the address too; single.js knows it.
  const address = {
    read: () => location.hash.slice(1),
    write: (text) => location.replace(`#${text}`),
    isHere: () => true,
  };

  // One page while it is shown. What its scripts listen to with `signal` ends with it.
  class Page {
    #leave = new AbortController();
    #listeners = [];
    #keys = [];

    get signal() { return this.#leave.signal; }

    // The state in the address, as URLSearchParams.
    get state() { return new URLSearchParams(report.address.read()); }

    // Writes the state into the address; those who listen are told if it has changed. A page that
    // was left has no say in it any more.
    set state(parts) {
      if (this.signal.aborted) return;
      const text = String(parts);
      if (text !== report.address.read()) report.address.write(text);
    }

    // Calls `listener` when the state in the address changes.
    onState(listener) { this.#listeners.push(listener); }

    // Adds lines to the list of keys: pairs of keys and what they do.
    addKeys(...lines) { this.#keys.push(...lines); }

    get keys() { return this.#keys; }

    tell() { for (const listener of this.#listeners) listener(); }

    close() { this.#leave.abort(); }
  }

  function open() {
    current?.close();
    delete document.documentElement.dataset.ready;
    current = new Page();
    document.getElementById("keys")?.removeAttribute("hidden");
    document.getElementById("keys")?.addEventListener("click", showKeys, { signal: current.signal });
    return Promise.all(starts.map((start) => start(current))).then(() => {
      document.documentElement.dataset.ready = "true";
    });
  }

  function showKeys() {
    const dialog = document.getElementById("keys-dialog");
    const lines = [...current.keys, [["?"], "this list"], [["Esc"], "close it"]];
    dialog.querySelector("dl").replaceChildren(...lines.map(([keys, does]) => {
      const line = document.createElement("div");
      const term = line.appendChild(document.createElement("dt"));
      for (const key of keys) term.appendChild(document.createElement("kbd")).textContent = key;
      line.appendChild(document.createElement("dd")).textContent = does;
      return line;
    }));
    const letters = document.getElementById("keys-letters");
    letters.checked = lettersAreOn;
    letters.onchange = () => switchLetters(letters.checked);
    dialog.showModal();
  }

  // Keys that write a character may get in the way of speech input, so they can be switched off.
  // The choice is kept where the browser lets a page from disk keep something.
  const OFF = "gradcam-audit keys off";
  let lettersAreOn = true;
  try {
    lettersAreOn = localStorage.getItem(OFF) === null;
  } catch (problem) {
    if (problem.name !== "SecurityError") throw problem;
  }

  function switchLetters(on) {
    lettersAreOn = on;
    try {
      if (on) localStorage.removeItem(OFF);
      else localStorage.setItem(OFF, "1");
    } catch (problem) {
      if (problem.name !== "SecurityError" && problem.name !== "QuotaExceededError") throw problem;
    }
  }

  // Whether a key is meant for the page and not for a field, a dialog or the browser.
  function isFree(event, taken = "input, select, textarea, dialog") {
    if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented) return false;
    if (!lettersAreOn && event.key.length === 1 && event.key !== " ") return false;
    return !event.target.closest?.(taken);
  }

  document.addEventListener("keydown", (event) => {
    if (event.key === "?" && isFree(event) && document.getElementById("keys-dialog")) {
      event.preventDefault();
      showKeys();
    }
  });
  window.addEventListener("hashchange", () => { if (report.address.isHere()) current?.tell(); });

  // Where a file of the report is, by its path from index.html; "" if it is not there.
  const file = (name) => name;

  return { address, file, isFree, open, onPage: (start) => starts.push(start) };
})();

const onPage = report.onPage;

// A share in percent without its sign, as `formats.percent` writes it: 0 and 100 only if it is exactly
// that. Half-way cases, odd multiples of a quarter, go to the even digit.
function barePercent(share) {
  const scaled = 100 * share;
  const tenths = Math.floor(10 * scaled);
  const isHalfWay = Math.abs((4 * scaled) % 2) === 1;
  const text = isHalfWay ? ((tenths + (tenths % 2)) / 10).toFixed(1) : scaled.toFixed(1);
  if (Number(text) >= 100 && share < 1) return ">\u202f99.9";
  return Number(text) === 0 && share > 0 ? "<\u202f0.1" : text;
}

function percent(share) {
  return `${barePercent(share)}\u202f%`;
}

// Turns base64 of a zlib stream into bytes.
async function unpack(text) {
  const binary = atob(text);
  const packed = new Uint8Array(binary.length);
  for (let n = 0; n < packed.length; n += 1) packed[n] = binary.charCodeAt(n);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

if (!document.documentElement.hasAttribute("data-single")) {
  document.addEventListener("DOMContentLoaded", report.open);
}
