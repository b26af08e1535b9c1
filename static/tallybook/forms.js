/* What the admin's pages do while somebody types. Everything works without it: the server derives and checks too. */
(function () {
  "use strict";

  /* The same rule as usage/slugs.py. */
  function slugOf(name) {
    return name
      .normalize("NFKD")
      .replace(/[^\x00-\x7f]/g, "")
      .toLowerCase()
      .replace(/[^a-z0-9]+/g, "_")
      .replace(/^_+|_+$/g, "")
      .slice(0, 100)
      .replace(/_+$/, "");
  }

  function deriveSlug() {
    const name = document.querySelector("[data-tb-derive-from]");
    const slug = document.querySelector("[data-tb-derived]");
    if (!name || !slug) return;
    const shown = document.querySelector("[data-tb-preview-slug]");
    let own = slug.value !== "" && slug.value !== slugOf(name.value);
    function show() {
      if (shown) shown.textContent = slug.value || "…";
    }
    name.addEventListener("input", function () {
      if (!own) slug.value = slugOf(name.value);
      show();
    });
    slug.addEventListener("input", function () {
      own = slug.value !== "";
      show();
    });
    show();
  }

  function copyOnClick() {
    document.addEventListener("click", async function (event) {
      const button = event.target.closest("[data-tb-copy]");
      if (!button) return;
      const text = document.getElementById(button.dataset.tbCopy).textContent;
      const icon = button.querySelector("span");
      try {
        await navigator.clipboard.writeText(text);
        icon.textContent = "check";
      } catch {
        /* No clipboard on plain http: select the text instead, so that one key press copies it. */
        window.getSelection().selectAllChildren(document.getElementById(button.dataset.tbCopy));
        icon.textContent = "select_all";
      }
      window.setTimeout(function () {
        icon.textContent = "content_copy";
      }, 1600);
    });
  }

  /* "not set" and a text exclude each other. */
  function textOrUnset() {
    document.querySelectorAll(".tb-text-or-unset").forEach(function (row) {
      const text = row.querySelector("[data-tb-text]");
      const unset = row.querySelector("[data-tb-unset]");
      text.addEventListener("input", function () {
        unset.checked = false;
      });
      unset.addEventListener("change", function () {
        if (unset.checked) text.value = "";
      });
    });
  }

  document.addEventListener("DOMContentLoaded", function () {
    deriveSlug();
    copyOnClick();
    textOrUnset();
  });
})();
