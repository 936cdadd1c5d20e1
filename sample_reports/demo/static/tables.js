// Makes the columns of tables marked `data-sortable` sort at a click, and gives those marked
// `data-searchable` a field, named by the mark, that keeps the rows whose first cell has the text.
"use strict";

onPage((page) => {
  const compareText = new Intl.Collator("en", { numeric: true }).compare;

  // A cell's number, or its text where it holds none. Undefined numbers come last either way.
  function content(cell) {
    const stored = cell.querySelector("data");
    if (stored) return Number(stored.value);
    return cell.querySelector(".nothing") ? null : cell.textContent.trim();
  }

  function compare(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null);
    const order = typeof a === "number" && typeof b === "number" ? a - b : compareText(String(a), String(b));
    return sign * order;
  }

  function sort(table, column, header) {
    const descending = header.getAttribute("aria-sort") === "ascending"
      || (header.classList.contains("figure") && header.getAttribute("aria-sort") !== "descending");
    for (const other of table.tHead.querySelectorAll("th")) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row, place) => ({ row, place, value: content(row.cells[column]) }));
    rows.sort((a, b) => compare(a.value, b.value, descending ? -1 : 1) || a.place - b.place);
    body.append(...rows.map((item) => item.row));
  }

  function makeSortable(table) {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sort(table, column, header));
      header.append(button);
    });
  }

  function makeSearchable(table) {
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, text: row.cells[0].textContent.toLowerCase() }));
    const bar = document.createElement("div");
    bar.className = "filters filters-table";
    const label = bar.appendChild(document.createElement("label"));
    label.className = "search";
    label.textContent = `${table.dataset.searchable} `;
    const field = label.appendChild(document.createElement("input"));
    field.type = "search";
    field.autocomplete = "off";
    field.spellcheck = false;
    const found = bar.appendChild(document.createElement("p"));
    found.className = "filter-count";
    found.setAttribute("role", "status");
    table.closest(".scroll").before(bar);

    function search() {
      const wanted = field.value.trim().toLowerCase();
      let n = 0;
      for (const { row, text } of rows) {
        row.hidden = !text.includes(wanted);
        n += row.hidden ? 0 : 1;
      }
      found.textContent = wanted ? `${n.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows` : "";
    }

    // After a short rest, so that a reader of the screen is told one count and not one per letter.
    let rest = 0;
    field.addEventListener("input", () => {
      clearTimeout(rest);
      rest = setTimeout(search, 120);
    });
    page.signal.addEventListener("abort", () => clearTimeout(rest));
  }

  for (const table of document.querySelectorAll("table[data-sortable]")) makeSortable(table);
  for (const table of document.querySelectorAll("table[data-searchable]")) makeSearchable(table);
});
