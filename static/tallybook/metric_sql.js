/* The SQL builder: line numbers, the marked line, and names that a click puts into the text. */
(function () {
  "use strict";

  function editor(place) {
    const text = place.querySelector("textarea");
    const frame = document.createElement("div");
    const lines = document.createElement("div");
    frame.className = "tb-sql-editor";
    lines.className = "tb-sql-lines";
    lines.setAttribute("aria-hidden", "true");
    text.before(frame);
    frame.append(lines, text);
    let faulty = Number(place.dataset.tbLine || 0);

    function number() {
      const count = text.value.split("\n").length;
      while (lines.childElementCount > count) lines.lastElementChild.remove();
      while (lines.childElementCount < count) {
        const line = document.createElement("span");
        line.textContent = String(lines.childElementCount + 1);
        lines.append(line);
      }
      Array.from(lines.children).forEach((line, index) => line.classList.toggle("tb-faulty", index + 1 === faulty));
      lines.scrollTop = text.scrollTop;
    }

    function mark(line) {
      faulty = line || 0;
      number();
    }

    text.addEventListener("input", number);
    text.addEventListener("scroll", () => (lines.scrollTop = text.scrollTop));
    new ResizeObserver(() => (lines.style.height = text.clientHeight + "px")).observe(text);
    /* A step in from the margin; Escape, then Tab, leaves the text. */
    let leaving = false;
    text.addEventListener("keydown", function (event) {
      if (event.key === "Tab" && !event.shiftKey && !leaving) {
        event.preventDefault();
        insert(text, "  ");
      }
      leaving = event.key === "Escape";
    });
    number();
    return { text: text, mark: mark };
  }

  function insert(text, piece) {
    text.setRangeText(piece, text.selectionStart, text.selectionEnd, "end");
    text.focus();
    text.dispatchEvent(new Event("input", { bubbles: true }));
  }

  function start() {
    const place = document.querySelector("[data-tb-sql]");
    if (!place) return;
    const own = editor(place);
    document.querySelectorAll("[data-tb-insert]").forEach(function (button) {
      button.addEventListener("click", function (event) {
        event.preventDefault();
        insert(own.text, button.dataset.tbInsert);
      });
    });
    document.addEventListener("tallybook:previewed", (event) => own.mark(event.detail.line));
    const owner = document.querySelector("[data-tb-owner]");
    function fit() {
      document.querySelectorAll("[data-tb-owned-by]").forEach((part) => (part.hidden = part.dataset.tbOwnedBy !== owner.value));
    }
    if (owner) {
      owner.addEventListener("change", fit);
      fit();
    }
  }

  document.addEventListener("DOMContentLoaded", start);
})();
