// Draws the charts in the colours of the reader's scheme, and again when that changes.
"use strict";
(function () {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

  function alpha(hex, share) {
    const part = (at) => parseInt(hex.slice(at, at + 2), 16);
    return "rgba(" + part(1) + "," + part(3) + "," + part(5) + "," + share + ")";
  }

  function trace(plain) {
    const own = Object.assign({}, plain), shade = colour(plain.role);
    delete own.role;
    if (own.type === "bar") own.marker = { color: shade, line: { width: 0 } };
    else if (own.mode === "markers") own.marker = Object.assign({ size: 9, line: { width: 2, color: shade } }, own.marker, { color: shade });
    else own.line = Object.assign({}, own.line, { color: shade });
    if (own.band) { own.fillcolor = alpha(shade, 0.16); delete own.band; }
    return own;
  }

  function axis(own) {
    return Object.assign(
      { gridcolor: colour("rule"), linecolor: colour("rule"), zeroline: false, automargin: true,
        tickfont: { color: colour("quiet") } },
      own, own && own.title ? { title: Object.assign({ font: { color: colour("quiet"), size: 12 }, standoff: 8 }, own.title) } : {});
  }

  function layout(chart) {
    const made = Object.assign({}, chart.layout, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 50, r: 14, t: 10, b: 44 },
      font: { family: "system-ui, sans-serif", size: 12, color: colour("ink") }, hovermode: "closest",
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("rule"), font: { color: colour("ink") } },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { color: colour("ink") } },
      xaxis: axis(chart.layout.xaxis), yaxis: axis(chart.layout.yaxis),
    });
    for (const name of ["yaxis2", "yaxis3"]) if (chart.layout[name]) made[name] = axis(chart.layout[name]);
    if (chart.traces.some((one) => one.showlegend)) made.showlegend = true;
    if (chart.measured) {
      made.shapes = [{ type: "rect", xref: "x", yref: "paper", x0: chart.measured[0], x1: chart.measured[1],
        y0: 0, y1: 1, fillcolor: alpha(colour("quiet"), 0.1), line: { width: 0 }, layer: "below" }];
    }
    return made;
  }

  function draw() {
    charts.forEach(function (chart, index) {
      Plotly.react("chart-" + index, chart.traces.map(trace), layout(chart),
        { responsive: true, displaylogo: false, displayModeBar: false });
    });
  }

  draw();
  dark.addEventListener("change", draw);
})();
