// Makes the columns of tables marked `data-sortable` sort at a click.
"use strict";

onPage(() => {
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

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sort(table, column, header));
      header.append(button);
    });
  }
});
