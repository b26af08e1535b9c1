/* The visual builder: only what goes with the usage event and with the calculation is shown. */
(function () {
  "use strict";

  const catalog = JSON.parse((document.getElementById("tb-catalog") || { textContent: "{}" }).textContent);

  function chosenSource() {
    return document.querySelector("[data-tb-source]").value;
  }

  function propertiesOf(source) {
    return (catalog[source] || { properties: [] }).properties;
  }

  function fitToSource() {
    const source = chosenSource();
    document.querySelectorAll("[data-tb-of]").forEach((part) => (part.hidden = part.dataset.tbOf !== source));
    const others = document.querySelector("#same-records");
    if (others) others.hidden = !others.querySelector('[data-tb-of="' + CSS.escape(source) + '"]');
    document.querySelectorAll("[data-tb-chips]").forEach(function (chips) {
      const boxes = Array.from(chips.querySelectorAll("input"));
      const own = boxes.length ? boxes[0].value.startsWith(source + "/") : false;
      chips.hidden = !own;
      if (!own && source) boxes.forEach((box) => (box.checked = false));
    });
    atMostFive();
    fitValues();
  }

  function atMostFive() {
    const chosen = document.querySelectorAll('input[name="group_by"]:checked').length;
    document.querySelectorAll('input[name="group_by"]').forEach((box) => (box.disabled = !box.checked && chosen >= 5));
  }

  /* Of the properties, those of the usage event; numbers, unless distinct values are counted. */
  function fitValues() {
    const source = chosenSource();
    const distinct = document.querySelector("[data-tb-calculation]").value === "unique_count";
    const numbers = new Set(propertiesOf(source).filter((one) => one.number).map((one) => one.name));
    const select = document.querySelector("[data-tb-value]");
    const fits = (value) => value.startsWith(source + "/") && (distinct || numbers.has(value.slice(source.length + 1)));
    select.querySelectorAll("option").forEach(function (option) {
      option.hidden = option.disabled = option.value !== "" && !fits(option.value);
    });
    select.querySelectorAll("optgroup").forEach(function (group) {
      group.hidden = Array.from(group.children).every((option) => option.hidden);
    });
    /* A property that a later schema lost stays chosen, so that its mistake can be told. */
    const lost = select.value.startsWith(source + "/") && !select.selectedOptions[0].hidden;
    if (select.value && !fits(select.value) && !lost) select.value = "";
    if (!select.value) chooseTheOnly(select);
    offerNames(numbers);
  }

  function chooseTheOnly(select) {
    const open = Array.from(select.options).filter((option) => option.value && !option.hidden);
    if (open.length === 1) select.value = open[0].value;
  }

  function quoted(name) {
    return /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) ? name : '"' + name.replaceAll('"', '""') + '"';
  }

  /* The names that an expression may use, to be clicked in. */
  function offerNames(numbers) {
    const place = document.querySelector("[data-tb-names]");
    place.replaceChildren();
    place.hidden = !numbers.size;
    numbers.forEach(function (name) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "tb-name";
      button.textContent = name;
      button.addEventListener("click", function () {
        const text = document.getElementById("id_expression");
        text.setRangeText(quoted(name), text.selectionStart, text.selectionEnd, "end");
        text.focus();
        text.dispatchEvent(new Event("input", { bubbles: true }));
      });
      place.append(button);
    });
  }

  function fitToCalculation() {
    const calculation = document.querySelector("[data-tb-calculation]").value;
    const fits = (part) => part.dataset.tbFor.split(" ").includes(calculation);
    const from = document.querySelector('input[name="value_from"]:checked');
    const choice = ["unique_count", "as_is"].includes(calculation) || !from ? "property" : from.value;
    document.querySelectorAll("[data-tb-for]").forEach((part) => (part.hidden = !fits(part)));
    document.querySelectorAll("[data-tb-value-of]").forEach(function (part) {
      part.hidden = !fits(part) || part.dataset.tbValueOf !== choice;
    });
    const mode = document.querySelector("[data-tb-rounding]");
    document.querySelector("[data-tb-rounded]").hidden = !mode.value;
    fitValues();
  }

  function start() {
    const source = document.querySelector("[data-tb-source]");
    if (!source) return;
    document.documentElement.classList.add("tb-scripted");
    if (!document.querySelector('input[name="value_from"]:checked')) {
      document.querySelector('input[name="value_from"]').checked = true;
    }
    const own = Array.from(source.options).filter((option) => option.value);
    if (!source.value && own.length === 1) source.value = own[0].value;
    source.addEventListener("change", fitToSource);
    document.querySelectorAll('[data-tb-calculation], [data-tb-rounding], input[name="value_from"]').forEach((control) =>
      control.addEventListener("change", fitToCalculation),
    );
    document.querySelectorAll('input[name="group_by"]').forEach((box) => box.addEventListener("change", atMostFive));
    fitToCalculation();
    fitToSource();
    window.tallybookFilters.start(document.querySelector("[data-tb-filters]"), () => propertiesOf(chosenSource()));
    source.addEventListener("change", window.tallybookFilters.draw);
  }

  document.addEventListener("DOMContentLoaded", start);
})();
