// Fills in how long the run took, from logs/times.js, which lies beside the report in its run folder.
"use strict";

onPage(() => {
  const table = document.getElementById("times-table");
  const times = report.times;
  if (!table || !times) return;
  const make = (tag, text, name = "") => Object.assign(document.createElement(tag), { textContent: text, className: name });
  table.tBodies[0].replaceChildren(...times.rows.map(({ stage, time, share }) => {
    const row = document.createElement("tr");
    row.append(Object.assign(make("th", stage), { scope: "row" }), make("td", time, "figure"), make("td", share, "figure"));
    return row;
  }));
  document.getElementById("times-total").textContent = times.total;
  document.getElementById("times-when").textContent = times.ended ? `${times.began} to ${times.ended}` : `since ${times.began}`;
  table.hidden = false;
  for (const element of document.querySelectorAll("[data-times]")) element.hidden = element.dataset.times === "without";
});
