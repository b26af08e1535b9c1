/* The page of quantities: its chart, and the fields that go with the chosen metric. Everything works without it. */
(function () {
  "use strict";

  /* What was added up is grey: it is no series of its own. */
  function paleOthers(place, shown) {
    const chart = typeof Chart === "undefined" ? null : Chart.getChart(place.querySelector("canvas"));
    const others = chart && chart.data.datasets[shown.series.findIndex((one) => one.others)];
    if (!others) return;
    others.backgroundColor = others.borderColor = document.documentElement.classList.contains("dark") ? "#4b5563" : "#cfd5dd";
    chart.update();
  }

  function drawChart() {
    const place = document.querySelector("[data-tb-quantity-chart]");
    const source = document.getElementById("tb-chart");
    if (!place || !source) return;
    const shown = JSON.parse(source.textContent);
    window.tallybookChart.draw(place, shown);
    paleOthers(place, shown);
    /* After the chart was drawn anew in the colours of the other theme. */
    new MutationObserver(() => paleOthers(place, shown)).observe(document.documentElement, {
      attributes: true,
      attributeFilter: ["class"],
    });
  }

  /* Another metric has other dimensions: its page brings the fields for them. */
  function followMetric() {
    const form = document.querySelector("[data-tb-quantities]");
    if (!form) return;
    form.elements.metric.addEventListener("change", function () {
      const dimensions = form.querySelector("[data-tb-dimensions]");
      if (!dimensions) return;
      dimensions.disabled = true;
      form.requestSubmit();
    });
    /* Fields that are empty need not stand in the address. */
    form.addEventListener("formdata", function (event) {
      for (const [name, value] of Array.from(event.formData.entries())) {
        if (value === "" && name !== "metric") event.formData.delete(name);
      }
    });
  }

  drawChart();
  followMetric();
})();
