/* Uploads: the progress while somebody looks on. Without it the page loads itself again. */
(function () {
  "use strict";

  const EVERY = 1000;

  function show(place, progress) {
    Object.keys(progress).forEach(function (name) {
      place.querySelectorAll('[data-tb-count="' + name + '"]').forEach(function (shown) {
        shown.textContent = Number(progress[name]).toLocaleString("en");
      });
    });
    const bar = place.querySelector('[role="progressbar"]');
    bar.setAttribute("aria-valuenow", progress.percent);
    bar.firstElementChild.style.width = progress.percent + "%";
  }

  async function follow(place) {
    try {
      const answer = await fetch(place.dataset.tbProgress, { headers: { Accept: "application/json" } });
      if (answer.ok && !answer.redirected) {
        const progress = await answer.json();
        show(place, progress);
        if (!progress.under_way) {
          window.location.reload();
          return;
        }
      }
    } catch {
      /* The server is away for a moment: ask again. */
    }
    window.setTimeout(follow, EVERY, place);
  }

  /* A large file takes a while to arrive: say so, and take it once. */
  function sendOnce(form) {
    form.addEventListener("submit", function () {
      const button = form.querySelector('button[type="submit"]');
      button.textContent = form.dataset.tbUploading;
      window.setTimeout(function () {
        button.disabled = true;
      });
    });
  }

  /* The theme's script would look for the text field of the theme's own file field, which this one has not. */
  document.querySelectorAll('input[type="file"]').forEach(function (input) {
    input.hasChangeListener = true;
  });

  document.addEventListener("DOMContentLoaded", function () {
    document.querySelectorAll("[data-tb-progress]").forEach(follow);
    document.querySelectorAll("[data-tb-uploading]").forEach(sendOnce);
  });
})();
