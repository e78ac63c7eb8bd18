// Emphasises a target in every plot while its name is pointed at, or once it was pressed.
"use strict";
(() => {
  const buttons = document.querySelectorAll(".legend button");
  let held = null;
  const show = (target) => {
    document.body.classList.toggle("focused", target !== null);
    for (const part of document.querySelectorAll(".series, tr, .legend button")) {
      const own = target !== null
        && (part.classList.contains(target) || part.querySelector(`th .${target}`) !== null);
      part.classList.toggle("focus", own);
    }
  };
  for (const button of buttons) {
    const target = button.dataset.target;
    button.addEventListener("mouseenter", () => show(target));
    button.addEventListener("mouseleave", () => show(held));
    button.addEventListener("click", () => {
      held = held === target ? null : target;
      for (const other of buttons) {
        other.setAttribute("aria-pressed", String(other.dataset.target === held));
      }
      show(held);
    });
  }
})();
