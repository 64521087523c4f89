"use strict";
// what is folded on the screen is part of the printed page
addEventListener("beforeprint", () => {
  for (const d of document.querySelectorAll("details:not([open])")) { d.open = true; d.dataset.shut = "1"; }
});
addEventListener("afterprint", () => {
  for (const d of document.querySelectorAll("details[data-shut]")) { d.open = false; delete d.dataset.shut; }
});
