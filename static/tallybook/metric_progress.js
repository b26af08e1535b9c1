/* A build, while somebody looks on. Without it the page loads itself again. */
(function () {
  "use strict";

  const EVERY = 1000;

  async function follow(place) {
    try {
      const answer = await fetch(place.dataset.tbBuild, { headers: { Accept: "application/json" } });
      if (answer.ok && !answer.redirected) {
        const progress = await answer.json();
        if (!progress.building) {
          window.location.reload();
          return;
        }
        const bar = place.querySelector('[role="progressbar"]');
        place.querySelector("[data-tb-percent]").textContent = progress.percent;
        bar.setAttribute("aria-valuenow", progress.percent);
        bar.firstElementChild.style.width = progress.percent + "%";
      }
    } catch {
      /* The server is away for a moment: ask again. */
    }
    window.setTimeout(follow, EVERY, place);
  }

  document.addEventListener("DOMContentLoaded", function () {
    document.querySelectorAll("[data-tb-build]").forEach(follow);
  });
})();
