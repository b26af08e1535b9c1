/* The panel beside a builder: what the definition gives, asked anew a moment after each change. */
(function () {
  "use strict";

  const PAUSE = 600;
  let waiting = null;
  let asking = null;

  function fieldOf(name) {
    const control = document.querySelector('#tb-form [name="' + CSS.escape(name) + '"], [form="tb-form"][name="' + CSS.escape(name) + '"]');
    return (
      document.querySelector('[data-tb-field="' + CSS.escape(name) + '"]') ||
      (control && control.closest(".tb-field, .tb-filter"))
    );
  }

  function clearErrors() {
    document.querySelectorAll(".tb-live-errors").forEach((list) => list.remove());
    document.querySelectorAll(".tb-live-faulty").forEach((field) => field.classList.remove("errors", "tb-live-faulty"));
  }

  function isEmpty(field) {
    const control = field.querySelector("input:not([type=checkbox]):not([type=radio]), select, textarea");
    return Boolean(control) && control.value.trim() === "";
  }

  /* What is still empty is not scolded while somebody is on the way there. */
  function showErrors(errors, typed) {
    Object.keys(errors).forEach(function (name) {
      const field = name && fieldOf(name);
      if (!field || (!typed && isEmpty(field)) || field.querySelector(".tb-errors")) return;
      const list = document.createElement("ul");
      list.className = "tb-errors tb-live-errors";
      errors[name].forEach(function (message) {
        const line = document.createElement("li");
        line.textContent = message;
        list.append(line);
      });
      const help = field.querySelector(".tb-help");
      if (help) help.before(list);
      else field.append(list);
      field.classList.add("errors", "tb-live-faulty");
    });
  }

  function showPlain(panel, message) {
    const note = document.createElement("p");
    note.className = "tb-panel-note";
    note.textContent = message;
    panel.querySelector("[data-tb-result]").replaceChildren(note);
    window.tallybookChart.draw(panel.querySelector("[data-tb-chart]"), null);
  }

  function show(panel, found, typed) {
    panel.querySelector("[data-tb-result]").innerHTML = found.html;
    window.tallybookChart.draw(panel.querySelector("[data-tb-chart]"), found.chart);
    clearErrors();
    showErrors(found.errors, typed);
    document.dispatchEvent(new CustomEvent("tallybook:previewed", { detail: found }));
  }

  async function ask(form, panel, typed) {
    if (asking) asking.abort();
    const own = (asking = new AbortController());
    const busy = panel.querySelector("[data-tb-busy]");
    busy.hidden = false;
    panel.classList.add("tb-stale");
    try {
      const answer = await fetch(form.dataset.tbPreviewUrl, {
        method: "POST",
        body: new FormData(form),
        headers: { Accept: "application/json" },
        signal: own.signal,
      });
      if (!answer.ok || answer.redirected) throw new Error("no answer");
      show(panel, await answer.json(), typed);
    } catch (error) {
      if (own.signal.aborted) return;
      showPlain(panel, "The preview could not be fetched. Your entries are still here; try again in a moment.");
    }
    if (own === asking) {
      busy.hidden = true;
      panel.classList.remove("tb-stale");
    }
  }

  /* A definition without a source is no question yet. */
  function isReady(form) {
    const source = form.elements.sql || form.elements.usage_event;
    return Boolean(source && source.value.trim());
  }

  function start() {
    const form = document.querySelector("[data-tb-preview-url]");
    const panel = document.querySelector("[data-tb-panel]");
    if (!form || !panel) return;
    const naming = new Set(["name", "code"]);

    function later(event) {
      if (!isReady(form) || (event && event.target && naming.has(event.target.name))) return;
      window.clearTimeout(waiting);
      waiting = window.setTimeout(ask, PAUSE, form, panel, false);
    }

    [form, panel].forEach(function (place) {
      place.addEventListener("input", later);
      place.addEventListener("change", later);
    });
    panel.querySelector('button[name="preview"]').addEventListener("click", function (event) {
      event.preventDefault();
      window.clearTimeout(waiting);
      ask(form, panel, true);
    });
    if (isReady(form)) ask(form, panel, false);
  }

  document.addEventListener("DOMContentLoaded", start);
})();
