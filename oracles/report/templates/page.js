"use strict";
(() => {
  // The matrix is one stop of the Tab key; the arrow keys move through its cells.
  const details = document.getElementById("cell-details");
  const table = document.querySelector("#results .matrix");
  if (table && details) {
    const rows = [...table.tBodies[0].rows].map((row) => [...row.querySelectorAll("td")]);
    const stop = (cell) => cell.querySelector("a") || cell;
    let current = null;
    const show = (cell) => { details.textContent = cell.querySelector(".hidden").textContent; };
    const visit = (i, j, takesFocus) => {
      if (current) stop(current).tabIndex = -1;
      current = rows[i][j];
      stop(current).tabIndex = 0;
      if (takesFocus) { stop(current).focus(); show(current); }
    };
    table.setAttribute("role", "grid");
    rows.forEach((cells, i) => cells.forEach((cell, j) => {
      stop(cell).tabIndex = -1;
      cell.addEventListener("mouseenter", () => show(cell));
      cell.addEventListener("click", () => visit(i, j, true));
      cell.addEventListener("focusin", () => show(cell));
      cell.addEventListener("keydown", (event) => {
        const last = cells.length - 1;
        const moves = {
          ArrowUp: [i - 1, j], ArrowDown: [i + 1, j], ArrowLeft: [i, j - 1], ArrowRight: [i, j + 1],
          Home: [event.ctrlKey ? 0 : i, 0], End: [event.ctrlKey ? rows.length - 1 : i, last],
        };
        const to = moves[event.key];
        if (!to) return;
        event.preventDefault();
        if (rows[to[0]] && rows[to[0]][to[1]]) visit(to[0], to[1], true);
      });
    }));
    if (rows.length && rows[0].length) visit(0, 0, false);
  }

  // A link to a refusal opens it.
  const open = () => {
    const target = document.getElementById(location.hash.slice(1));
    const whole = target && (target.matches("details") ? target : target.querySelector(":scope > details.whole"));
    if (whole) whole.open = true;
  };
  addEventListener("hashchange", open);
  open();

  const selectAndCopy = (element) => {
    const range = document.createRange();
    range.selectNodeContents(element);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    return document.execCommand("copy");
  };
  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", async () => {
      const script = button.closest("details").querySelector(".script");
      const says = button.parentElement.querySelector(".copied");
      let copied = true;
      try {
        await navigator.clipboard.writeText(script.textContent);
      } catch {
        copied = selectAndCopy(script); // no clipboard in this place
      }
      says.textContent = copied ? "copied" : "selected: copy it with the keyboard";
    });
  }
})();
