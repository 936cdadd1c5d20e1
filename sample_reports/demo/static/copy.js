// Copies a button's `data-copy`, or the text of the element that `data-copy-from` names. Where the
// clipboard is closed, that element is selected; beside `data-copy` it is the path.
"use strict";

onPage(() => {
  for (const button of document.querySelectorAll("[data-copy], [data-copy-from]")) {
    button.hidden = false;
    const source = document.getElementById(button.dataset.copyFrom ?? "path");
    button.addEventListener("click", async () => {
      const label = button.textContent;
      try {
        await navigator.clipboard.writeText(button.dataset.copy ?? source.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(source);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = label; }, 1500);
    });
  }
});
