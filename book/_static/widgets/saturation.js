/* Saturation: how large sums are, and how much of the gradient a unit passes back. Section 3.1 of the paper. */
(function () {
  "use strict";

  const UNITS = {
    tanh: { title: "tanh", slope: (x) => 1 - Math.tanh(x) ** 2 },
    logistic: { title: "logistic function", slope: (x) => { const y = 1 / (1 + Math.exp(-x)); return y * (1 - y); } },
    relu: { title: "ReLU", slope: (x) => (x > 0 ? 1 : 0) },
  };
  const FLAT = 0.01; // a slope below it counts as saturated

  /* Normal sums of a mean and a standard deviation: the share of units with a slope below FLAT, and the mean slope. */
  function measure(slope, mean, deviation, steps = 20000) {
    let flat = 0, passed = 0, all = 0;
    for (let i = 0; i < steps; i++) {
      const z = -8 + (16 * (i + 0.5)) / steps, weight = Math.exp(-0.5 * z * z), own = slope(mean + deviation * z);
      all += weight;
      passed += weight * own;
      if (own < FLAT) flat += weight;
    }
    return { saturated: flat / all, passed: passed / all };
  }

  if (typeof module === "object") { module.exports = { UNITS, measure }; return; }
  const { html, svg, slider, choice, button, result, significant } = Widgets;

  Widgets.define("saturation", "How much of the gradient a unit passes back", (body) => {
    const spread = slider({ label: "standard deviation", min: -2, max: 5, step: 0.1, value: Math.log2(15), show: (v) => significant(2 ** v, 2), change: draw });
    const mean = slider({ label: "mean", min: -5, max: 5, step: 0.5, value: 0, show: (v) => v.toFixed(1), change: draw });
    const other = choice({ legend: "Beside ReLU:", value: "tanh", change: draw, options: [["tanh", "tanh"], ["logistic", "logistic function"]] });
    const said = result(), set = (value) => () => { spread.set(Math.log2(value)); mean.set(0); draw(); };
    const panels = [0, 1].map(() => svg("svg", { viewBox: "0 0 320 190", role: "img" }));
    body.append(html("div", { class: "widget-row" }, button("conv1 on the photograph", set(15)), button("a standard deviation of 1", set(1))),
      html("div", { class: "widget-controls" }, spread.node, mean.node), other.node,
      html("div", { class: "widget-pair" }, panels), said.node,
      html("p", { class: "widget-note" }, "The bell is the distribution of the sums. Colored: the units whose slope is large enough to learn from, the stronger the larger the slope. Line: the slope."));

    function draw() {
      const deviation = 2 ** spread.value, center = mean.value, reach = Math.max(6, 3 * deviation + Math.abs(center)), words = [];
      const x = (sum) => 160 + (150 * sum) / reach, y = (value) => 165 - 130 * value;
      [other.value, "relu"].forEach((name, panel) => {
        const { title, slope } = UNITS[name], found = measure(slope, center, deviation), color = panel ? "var(--w-first)" : "var(--w-second)", parts = [];
        const bell = (sum) => Math.exp(-0.5 * ((sum - center) / deviation) ** 2), slices = 150, width = (2 * reach) / slices;
        for (let i = 0; i < slices; i++) {
          const sum = -reach + (i + 0.5) * width, tall = 130 * bell(sum);
          if (tall < 0.3) continue;
          const shape = { x: x(sum - width / 2), y: 165 - tall, width: 300 / slices + 0.1, height: tall };
          parts.push(svg("rect", { ...shape, fill: "var(--w-muted)", opacity: 0.18 }), svg("rect", { ...shape, fill: color, opacity: slope(sum) }));
        }
        const line = Array.from({ length: 301 }, (_, i) => -reach + (2 * reach * i) / 300).map((sum) => x(sum).toFixed(1) + "," + y(slope(sum)).toFixed(1)).join(" ");
        parts.push(svg("line", { x1: 10, x2: 310, y1: 165, y2: 165, stroke: "var(--w-line)" }), svg("polyline", { points: line, fill: "none", stroke: "var(--w-text)", "stroke-width": 1.5 }),
          svg("text", { x: 10, y: 14, "font-size": 14, "font-weight": 600 }, title));
        for (const tick of [-reach, 0, reach]) parts.push(svg("text", { x: x(tick), y: 184, "font-size": 12, class: "quiet", "text-anchor": tick < 0 ? "start" : tick ? "end" : "middle" }, significant(tick, 2)));
        const share = percent(found.saturated), passed = percent(found.passed);
        parts.push(svg("text", { x: 310, y: 14, "font-size": 13, "text-anchor": "end" }, share + " flat, passes " + passed));
        panels[panel].setAttribute("aria-label", title + ": " + share + " of the units are flat, the mean slope is " + passed);
        panels[panel].replaceChildren(...parts);
        words.push(title + ": " + share + " of the units have a slope below 1 %, and the mean slope is " + passed + ".");
      });
      said.say("Sums of standard deviation " + significant(deviation, 2) + " around " + center.toFixed(1) + ". " + words.join(" "));
    }
    const percent = (value) => (100 * value).toFixed(value < 0.095 ? 1 : 0) + " %";
    draw();
  });
})();
