/* The update rule on a loss surface: the paper's, with the rate inside the velocity, beside the common one, with the rate outside. */
(function () {
  "use strict";

  const VALLEY = [1, 12]; // the loss is half of 1 x^2 + 12 y^2: a valley twelve times as steep across as along
  const gradient = (w) => w.map((value, i) => VALLEY[i] * value);
  const loss = (w) => 0.5 * w.reduce((sum, value, i) => sum + VALLEY[i] * value * value, 0);

  /* v = m v - decay rate w - rate g; w = w + v */
  function paperStep(w, v, g, rate, momentum, decay) {
    const next = v.map((value, i) => momentum * value - decay * rate * w[i] - rate * g[i]);
    return [w.map((value, i) => value + next[i]), next];
  }

  /* torch.optim.SGD: v = m v + (g + decay w); w = w - rate v */
  function torchStep(w, v, g, rate, momentum, decay) {
    const next = v.map((value, i) => momentum * value + g[i] + decay * w[i]);
    return [w.map((value, i) => value - rate * next[i]), next];
  }

  /* Places after each of `steps` steps; the rate is divided by ten from step `fall` on. */
  function path(rule, { start, rate, momentum, decay = 0, steps, fall }) {
    let w = start, v = start.map(() => 0);
    const places = [w];
    for (let i = 0; i < steps; i++) {
      [w, v] = rule(w, v, gradient(w), i < fall ? rate : rate / 10, momentum, decay);
      places.push(w);
    }
    return places;
  }

  if (typeof module === "object") { module.exports = { paperStep, torchStep, path, loss, gradient, VALLEY }; return; }
  const { html, svg, slider, button, result, significant, still } = Widgets;
  const STEPS = 120, X = 3.2, Y = 1.2;

  Widgets.define("momentum", "The paper's momentum, and the common one, in a valley", (body) => {
    let start = [-2.8, 0.8], upto = STEPS, timer = 0;
    const rate = slider({ label: "rate ε", min: -3, max: -0.7, step: 0.05, value: -1.7, show: (v) => significant(10 ** v, 2), change: reset });
    const momentum = slider({ label: "momentum", min: 0, max: 0.98, step: 0.02, value: 0.9, show: (v) => v.toFixed(2), change: reset });
    const decay = slider({ label: "weight decay", min: 0, max: 0.5, step: 0.05, value: 0, show: (v) => v.toFixed(2), change: reset });
    const fall = slider({ label: "rate / 10 after step", min: 0, max: STEPS, value: 14, show: (v) => (v === STEPS ? "never" : String(v)), change: reset });
    const from = slider({ label: "start, along", min: -3, max: 3, step: 0.1, value: start[0], show: (v) => v.toFixed(1), change: moved });
    const over = slider({ label: "start, across", min: -1.1, max: 1.1, step: 0.1, value: start[1], show: (v) => v.toFixed(1), change: moved });
    const play = button("Step by step", run);
    const said = result();
    const drawing = svg("svg", { viewBox: "0 0 480 240", role: "img", "aria-label": "Two paths down a valley, seen from above", onclick: place });
    const chart = svg("svg", { viewBox: "0 0 480 130", role: "img", "aria-label": "Length of each step, for both rules" });
    body.append(html("div", { class: "widget-controls" }, rate.node, momentum.node, decay.node, fall.node, from.node, over.node), html("div", { class: "widget-row" }, play,
      html("span", { style: "color: var(--w-first)" }, "● the paper: the rate inside the velocity"), html("span", { style: "color: var(--w-second)" }, "◆ torch: the rate outside")),
      drawing, chart, said.node, html("p", { class: "widget-note" }, "The loss is (x² + 12 y²) / 2. Rings: places of equal loss. Below: the length of each step; the dotted line is where the rate falls. Click into the valley to start there."));

    const at = ([x, y]) => [240 + (232 * x) / X, 120 - (110 * y) / Y];
    function place(event) {
      const box = drawing.getBoundingClientRect();
      const [x, y] = [((event.clientX - box.left) / box.width) * 480, ((event.clientY - box.top) / box.height) * 240];
      from.set(((x - 240) * X) / 232);
      over.set(((120 - y) * Y) / 110);
      moved();
    }
    function moved() { start = [from.value, over.value]; reset(); }
    function reset() { clearInterval(timer); play.textContent = "Step by step"; upto = STEPS; draw(); }
    function run() {
      clearInterval(timer);
      if (play.textContent === "Stop") return reset();
      if (still()) { upto = upto >= STEPS ? 0 : Math.min(STEPS, upto + 1); play.textContent = upto < STEPS ? "Next step" : "Step by step"; return draw(); }
      upto = 0;
      play.textContent = "Stop";
      timer = setInterval(() => { upto++; if (upto >= STEPS) reset(); else draw(); }, 80);
    }

    function draw() {
      const settings = { start, rate: 10 ** rate.value, momentum: momentum.value, decay: decay.value, steps: STEPS, fall: fall.value };
      const both = [path(paperStep, settings), path(torchStep, settings)];
      const colors = ["var(--w-first)", "var(--w-second)"], parts = [];
      for (const level of [0.05, 0.2, 0.6, 1.3, 2.5, 4.2, 6.5]) {
        const [rx, ry] = VALLEY.map((steep) => Math.sqrt((2 * level) / steep));
        parts.push(svg("ellipse", { cx: 240, cy: 120, rx: (232 * rx) / X, ry: (110 * ry) / Y, fill: "none", stroke: "var(--w-line)" }));
      }
      const clip = (value) => Math.max(-1000, Math.min(1600, value));
      both.forEach((places, which) => {
        const shown = places.slice(0, upto + 1).map(at);
        parts.push(svg("polyline", { points: shown.map(([x, y]) => clip(x).toFixed(1) + "," + clip(y).toFixed(1)).join(" "), fill: "none", stroke: colors[which], "stroke-width": which ? 1.5 : 2.5, "stroke-dasharray": which ? "5 3" : null }));
        shown.forEach(([x, y], i) => { if (Math.abs(x) < 2000 && Math.abs(y) < 2000 && (i % 2 === 0 || i === shown.length - 1)) parts.push(which
          ? svg("path", { d: `M${x} ${y - 3.5}l3.5 3.5l-3.5 3.5l-3.5 -3.5z`, fill: colors[1] }) : svg("circle", { cx: x, cy: y, r: 2.6, fill: colors[0] })); });
      });
      drawing.replaceChildren(svg("clipPath", { id: "momentum-valley" }, svg("rect", { width: 480, height: 240 })), svg("g", { "clip-path": "url(#momentum-valley)" }, parts),
        svg("circle", { cx: at(start)[0], cy: at(start)[1], r: 6, fill: "none", stroke: "var(--w-text)", "stroke-width": 2 }));
      const lengths = both.map((places) => places.slice(1).map((w, i) => Math.hypot(w[0] - places[i][0], w[1] - places[i][1])));
      const top = Math.max(...lengths.flat().filter(Number.isFinite), 1e-9), x = (i) => 12 + (456 * i) / STEPS, y = (value) => 112 - (100 * Math.min(value, top)) / top;
      chart.replaceChildren(svg("line", { x1: 12, x2: 468, y1: 112, y2: 112, stroke: "var(--w-line)" }),
        fall.value < STEPS ? svg("line", { x1: x(fall.value), x2: x(fall.value), y1: 6, y2: 112, stroke: "var(--w-muted)", "stroke-dasharray": "2 4" }) : svg("g"),
        ...lengths.map((each, which) => svg("polyline", { points: each.slice(0, upto).map((value, i) => x(i).toFixed(1) + "," + y(value).toFixed(1)).join(" "), fill: "none", stroke: colors[which], "stroke-width": which ? 1.5 : 2.5, "stroke-dasharray": which ? "5 3" : null })),
        ...[0, 20, 40, 60, 80, 100, 120].map((i) => svg("text", { x: x(i), y: 127, "text-anchor": "middle", "font-size": 13, class: "quiet" }, String(i))));
      if (upto < STEPS) return said.say("Step " + upto + ": the loss is " + both.map((places) => significant(loss(places[upto]))).join(" by the paper's rule, ") + " by torch's.");
      const last = both.map((places) => loss(places[STEPS])), t = fall.value;
      if (last.some((value) => !(value < 1e6))) return said.say("The steps overshoot and grow: this rate is too large for the steep direction.");
      said.say(t > 0 && t < STEPS ? "Before the rate falls the two are one. The next step is " + significant(lengths[0][t]) + " long by the paper's rule, " + significant(lengths[1][t]) +
        " by torch's. After " + STEPS + " steps the loss is " + significant(last[0]) + " and " + significant(last[1]) + "."
        : "The rate never changes on the way, so the two rules are one. After " + STEPS + " steps the loss is " + significant(last[0]) + ".");
    }
    draw();
  });
})();
