// Shows the pages of a report that is one file. Each page, picture and list lies packed in an element
// of its own and is read only when it is looked at. An address is #/errors/12.html#layer=3.
"use strict";

(() => {
  const TYPES = { csv: "text/csv", jpg: "image/jpeg", json: "application/json", png: "image/png" };
  const FIRST = "index.html";
  const overview = { title: document.title, main: document.getElementById("main").cloneNode(true) };
  const byName = (elements, key) => new Map(elements.map((one) => [one.dataset[key], one]));
  const pages = byName([...document.querySelectorAll("script[data-page]")], "page");
  const files = byName([...document.querySelectorAll("script[data-file]")], "file");
  const inOverview = byName([...overview.main.querySelectorAll("img[data-file]")], "file");
  const scrolled = new Map();
  let shown = FIRST;
  let turn = 0;
  let byLink = false;

  // The page in the address, and what comes after it. Mail programs may encode the second "#".
  function where() {
    const [, name, state = ""] = /^#\/(.*?)(?:(?:#|%23)(.*))?$/s.exec(location.hash) ?? [null, "", location.hash.slice(1)];
    return { name: name || FIRST, state };
  }

  report.address = {
    read: () => where().state,
    write: (text) => { if (report.address.isHere()) location.replace(`#/${shown}${text && `#${text}`}`); },
    isHere: () => where().name === shown,
  };

  report.file = (name) => {
    const chunk = files.get(name);
    if (chunk) return `data:${TYPES[name.split(".").pop()]};base64,${chunk.textContent}`;
    return inOverview.get(name)?.getAttribute("src") ?? "";
  };

  async function unpack(text) {
    const packed = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).text();
  }

  // A page as text becomes elements in a document that shows nothing, so that nothing is asked for.
  async function read(name) {
    if (name === FIRST) return { title: overview.title, main: overview.main.cloneNode(true) };
    const chunk = pages.get(name);
    if (chunk) {
      const parsed = new DOMParser().parseFromString(await unpack(chunk.textContent), "text/html");
      return { title: parsed.title, main: parsed.querySelector("main") };
    }
    const isError = /^errors\/\d+\.html$/.test(name);
    const template = (isError && document.getElementById("page-left-out")) || document.getElementById("page-unknown");
    const main = template.content.firstElementChild.cloneNode(true);
    return { title: main.querySelector("h1").textContent, main };
  }

  function fillPictures(main) {
    for (const picture of main.querySelectorAll("img[src]:not([src^='data:'])")) {
      const address = report.file(picture.getAttribute("src"));
      if (address) picture.src = address;
      else if (picture.classList.contains("heat")) picture.remove();
      else picture.replaceWith(Object.assign(document.createElement("span"), { className: "stack-empty", textContent: "not in this file" }));
    }
  }

  // Makes a link between pages one within this file, also for a new tab; a list becomes a download.
  function settle(link) {
    const to = link.getAttribute("href");
    if (/^(#\/|[a-z]+:)/i.test(to) || link.matches(".skip")) return;
    if (link.hasAttribute("download")) {
      link.download = to.split("/").pop();
      link.href = report.file(to);
    } else {
      link.href = to.startsWith("#") ? `#/${shown}${to}` : `#/${to}`;
    }
  }

  function settleAll(part) {
    for (const link of part.querySelectorAll("a[href]")) settle(link);
  }

  async function show() {
    const { name, state } = where();
    turn += 1;
    const mine = turn;
    const isFollowed = byLink;
    byLink = false;
    const { title, main } = await read(name);
    if (mine !== turn) return;
    shown = name;
    for (const element of main.querySelectorAll("noscript")) element.remove();
    fillPictures(main);
    settleAll(main);
    document.title = title;
    document.getElementById("main").replaceWith(main);
    for (const link of document.querySelectorAll("[data-nav]")) {
      if (link.dataset.nav === main.dataset.here) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    main.focus({ preventScroll: true });
    scrollTo(0, 0);
    await report.open();
    if (mine !== turn) return;
    if (!isFollowed) scrollTo(0, scrolled.get(location.hash) ?? 0);
    goTo(state);
  }

  // Scrolls to a place of the page if the address names one.
  function goTo(state) {
    if (state && !state.includes("=")) document.getElementById(state)?.scrollIntoView();
  }

  window.addEventListener("hashchange", (event) => {
    if (report.address.isHere()) {
      byLink = false;
      goTo(where().state);
      return;
    }
    scrolled.set(new URL(event.oldURL).hash, scrollY);
    show();
  });

  // Scripts of pages make links too; they are settled when they are about to be used.
  for (const kind of ["pointerdown", "click", "auxclick", "contextmenu"]) {
    document.addEventListener(kind, (event) => {
      const link = event.target.closest?.("a[href]");
      if (!link) return;
      settle(link);
      if (kind !== "click") return;
      byLink = link.hash.startsWith("#/");
      if (!link.matches(".skip")) return;
      event.preventDefault();
      document.getElementById("main").focus();
    }, { capture: true });
  }

  history.scrollRestoration = "manual";
  settleAll(document);
  if (report.address.isHere()) report.open().then(() => goTo(where().state));
  else show();
})();
