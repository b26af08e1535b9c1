/* Series as a chart, in the theme's colours; Chart.js comes with the theme. */
(function () {
  "use strict";

  /* Told apart by lightness too, for who sees fewer colours. */
  const LIGHT = ["#0b6e84", "#c2571a", "#5b4bb5", "#3f8f4f", "#a83279", "#8a6d1d", "#2f5fb3", "#7a7f87"];
  const DARK = ["#57bcd0", "#f0975c", "#a99cf5", "#7fcb8d", "#ea84bd", "#d9b95a", "#84adf2", "#b3b8c0"];

  function isDark() {
    return document.documentElement.classList.contains("dark");
  }

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function dataset(one, index, shown) {
    const own = (isDark() ? DARK : LIGHT)[index % LIGHT.length];
    return {
      label: one.label,
      data: one.values,
      backgroundColor: own,
      borderColor: own,
      borderWidth: shown.type === "line" ? 2 : 0,
      pointRadius: shown.labels.length > 60 ? 0 : 2.5,
      tension: 0,
      spanGaps: false,
      maxBarThickness: 42,
    };
  }

  function axes(shown) {
    const line = colour("--tb-line");
    const text = colour("--tb-muted");
    const ticks = { color: text, font: { size: 11 }, maxRotation: 0, autoSkip: true, autoSkipPadding: 14 };
    return {
      x: { stacked: shown.stacked, grid: { display: false }, border: { color: line }, ticks: ticks },
      y: {
        stacked: shown.stacked,
        beginAtZero: shown.type === "bar",
        grid: { color: line },
        border: { display: false },
        ticks: { color: text, font: { size: 11 }, maxTicksLimit: 6 },
        title: { display: Boolean(shown.unit), text: shown.unit, color: text, font: { size: 11 } },
      },
    };
  }

  function configuration(shown) {
    return {
      type: shown.type,
      data: { labels: shown.labels, datasets: shown.series.map((one, index) => dataset(one, index, shown)) },
      options: {
        animation: false,
        responsive: true,
        maintainAspectRatio: false,
        interaction: { mode: "index", intersect: false },
        scales: axes(shown),
        plugins: {
          title: {
            display: Boolean(shown.left_out),
            text: "The " + shown.series.length + " largest of " + (shown.series.length + (shown.left_out || 0)),
            align: "end",
            color: colour("--tb-muted"),
            font: { size: 11, weight: "normal" },
            padding: { top: 0, bottom: 6 },
          },
          legend: {
            display: shown.series.length > 1,
            position: "bottom",
            labels: { boxWidth: 10, boxHeight: 10, color: colour("--tb-text"), font: { size: 11 } },
          },
        },
      },
    };
  }

  /* draw(place, shown): shown = {type, stacked, unit, labels, series: [{label, values}], left_out}, or null for nothing. */
  const drawn = new Map();
  function draw(place, shown) {
    const before = drawn.get(place);
    if (before) before.chart.destroy();
    drawn.delete(place);
    place.hidden = !shown;
    if (!shown || typeof Chart === "undefined") return;
    Chart.defaults.font.family = "Inter, system-ui, sans-serif";
    const chart = new Chart(place.querySelector("canvas"), configuration(shown));
    drawn.set(place, { chart: chart, shown: shown });
  }

  /* Light and dark are changed without loading the page. */
  new MutationObserver(function () {
    drawn.forEach((one, place) => draw(place, one.shown));
  }).observe(document.documentElement, { attributes: true, attributeFilter: ["class"] });

  window.tallybookChart = { draw: draw };
})();
