/* The page's contents mark the section that is read. Back above the first one the theme keeps the last mark: it is taken away here. */
(function () {
  "use strict";

  function unmark() {
    if (scrollY > 50) return;
    for (const link of document.querySelectorAll(".bd-sidebar-secondary .active")) {
      link.classList.remove("active");
      link.removeAttribute("aria-current");
    }
  }
  addEventListener("scroll", () => requestAnimationFrame(() => requestAnimationFrame(unmark)), { passive: true });
})();
