/* Response normalization across a strip of maps at one place: the paper's equation, and what is left of each response. */
(function () {
  "use strict";

  /* b_i = a_i (k + alpha sum_j a_j^2)^-beta over the n maps around i, within i's column. */
  function normalize(a, { n = 5, k = 2, alpha = 1e-4, beta = 0.75, columns = 1 } = {}) {
    const share = a.length / columns, half = (n - 1) / 2;
    return a.map((own, i) => {
      const begin = Math.floor(i / share) * share;
      let sum = 0;
      for (let j = Math.max(begin, i - half); j <= Math.min(begin + share - 1, i + half); j++) sum += a[j] * a[j];
      return own * Math.pow(k + alpha * sum, -beta);
    });
  }

  if (typeof module === "object") { module.exports = { normalize }; return; }
  const { html, svg, slider, toggle, button, result, significant } = Widgets;
  const MAPS = 24;

  Widgets.define("lrn", "Response normalization on a strip of maps", (body) => {
    const others = Array.from({ length: MAPS }, (_, i) => 20 + 10 * Math.sin(2.4 * i));
    const n = slider({ label: "n, maps", min: 1, max: 11, step: 2, value: 5, change: draw });
    const k = slider({ label: "k", min: 0.1, max: 4, step: 0.1, value: 2, show: (v) => v.toFixed(1), change: draw });
    const alpha = slider({ label: "α, per square", min: -6, max: -2, step: 0.05, value: -4, show: (v) => significant(10 ** v, 2), change: draw });
    const beta = slider({ label: "β", min: 0, max: 1.5, step: 0.05, value: 0.75, show: (v) => v.toFixed(2), change: draw });
    const which = slider({ label: "strong map", min: 0, max: MAPS - 1, value: 10, change: draw });
    const strength = slider({ label: "its response", min: 0, max: 400, step: 10, value: 300, change: draw });
    const seam = toggle({ label: "two columns, which do not see each other", value: true, change: draw });
    const settings = (label, values) => [button(label, () => { n.set(values[0]); k.set(values[1]); alpha.set(Math.log10(values[2])); beta.set(values[3]); draw(); }), values];
    const presets = [settings("the text", [5, 2, 1e-4, 0.75]), settings("the released source", [5, 2, 2e-5, 0.75]), settings("no normalization", [5, 1, 1e-6, 0])];
    const said = result();
    const drawing = svg("svg", { viewBox: "0 0 480 252", role: "img", "aria-label": "The share of each map's response that is left" });
    body.append(
      html("div", { class: "widget-row" }, presets.map(([press]) => press), seam.node),
      html("div", { class: "widget-controls" }, n.node, k.node, alpha.node, beta.node, which.node, strength.node),
      drawing, said.node, html("p", { class: "widget-note" }, "Gray: the responses, from 0 to 400. Colored: the share of each that the normalization leaves. Click a map to make it the strong one."));

    function draw() {
      const a = others.map((value, i) => (i === which.value ? strength.value : value));
      const now = { n: n.value, k: k.value, alpha: 10 ** alpha.value, beta: beta.value, columns: seam.value ? 2 : 1 };
      const share = normalize(a, now).map((b, i) => (a[i] ? b / a[i] : NaN)); // what lies below is drawn from the same numbers
      const top = Math.max(1, ...share.filter(Number.isFinite)), unit = 438 / MAPS, parts = [];
      a.forEach((value, i) => {
        const x = 40 + i * unit, color = seam.value && i >= MAPS / 2 ? "var(--w-second)" : "var(--w-first)";
        const tall = Number.isFinite(share[i]) ? (120 * share[i]) / top : 0;
        parts.push(svg("g", { onclick: () => { which.set(i); draw(); } },
          svg("rect", { x, y: 4, width: unit, height: 232, fill: "transparent" }),
          svg("rect", { x: x + 2.5, y: 74 - (70 * value) / 400, width: unit - 5, height: (70 * value) / 400, fill: "var(--w-muted)", opacity: i === which.value ? 1 : 0.5 }),
          svg("rect", { x: x + 2.5, y: 212 - tall, width: unit - 5, height: tall, fill: color }),
          svg("text", { x: x + unit / 2, y: 228, "text-anchor": "middle", "font-size": 13, class: "quiet" }, i % 2 ? "" : String(i))));
      });
      for (const level of top < 2.5 ? [0, 0.5, 1] : [0, Math.floor(top)]) {
        const y = 212 - (120 * level) / top;
        parts.push(svg("line", { x1: 40, x2: 478, y1: y, y2: y, stroke: "var(--w-line)" }), svg("text", { x: 0, y: y + 4, "font-size": 13, class: "quiet" }, String(level)));
      }
      parts.push(svg("text", { x: 40, y: 90, "font-size": 12, class: "quiet" }, "share kept"), svg("text", { x: 40, y: 12, "font-size": 12, class: "quiet" }, "response"),
        svg("text", { x: 478, y: 248, "font-size": 12, "text-anchor": "end", class: "quiet" }, "map"));
      if (seam.value) parts.push(svg("line", { x1: 259, x2: 259, y1: 4, y2: 232, stroke: "var(--w-text)", "stroke-dasharray": "3 4" }));
      drawing.replaceChildren(...parts);
      const i = which.value, j = i + 1 < MAPS ? i + 1 : i - 1, far = i < MAPS / 2 ? MAPS - 1 : 0, least = Math.pow(now.k, -now.beta);
      said.say("Map " + i + " keeps " + percent(share[i]) + " of its " + a[i].toFixed(0) + "; map " + j + ", beside it, keeps " + percent(share[j]) +
        " of its " + a[j].toFixed(0) + "; map " + far + ", far from it, keeps " + percent(share[far]) + " of its " + a[far].toFixed(0) + ". Responses near 0 among others near 0 keep k to the power −β, " + percent(least) + ".");
      for (const [press, values] of presets) press.setAttribute("aria-pressed", values.every((value, at) => Math.abs(value - [now.n, now.k, now.alpha, now.beta][at]) < 0.02 * value + 1e-9));
    }
    const percent = (value) => (Number.isFinite(value) ? (100 * value).toFixed(0) + " %" : "nothing");
    draw();
  });
})();
