// The frame of every page: starts its scripts, keeps their state in the address, lists the keys.
// A script says onPage(start) once; `start` gets the page each time one is shown.
"use strict";

const report = (() => {
  const starts = [];
  let current = null;

  // What comes after "#" belongs to the page: its state as key=value, or the name of a place.
  const address = {
    read: () => location.hash.slice(1),
    write: (text) => location.replace(`#${text}`),
  };

  // One page while it is shown. What its scripts listen to with `signal` ends with it.
  class Page {
    #leave = new AbortController();
    #listeners = [];
    #keys = [];

    get signal() { return this.#leave.signal; }

    // The state in the address, as URLSearchParams.
    get state() { return new URLSearchParams(report.address.read()); }

    // Writes the state into the address; those who listen are told if it has changed.
    set state(parts) {
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
    dialog.showModal();
  }

  // Whether a key is meant for the page and not for a field, a dialog or the browser.
  function isFree(event, taken = "input, select, textarea, dialog") {
    if (event.altKey || event.ctrlKey || event.metaKey || event.defaultPrevented) return false;
    return !event.target.closest?.(taken);
  }

  document.addEventListener("keydown", (event) => {
    if (event.key === "?" && isFree(event) && document.getElementById("keys-dialog")) {
      event.preventDefault();
      showKeys();
    }
  });
  window.addEventListener("hashchange", () => current?.tell());

  return { address, isFree, open, onPage: (start) => starts.push(start) };
})();

const onPage = report.onPage;
if (!document.documentElement.hasAttribute("data-single")) {
  document.addEventListener("DOMContentLoaded", report.open);
}
