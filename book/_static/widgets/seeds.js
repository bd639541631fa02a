/* How many seeds? What so many runs of two nets can tell of a difference between them: the functions of alexnet/claims/statistics.py. */
(function () {
  "use strict";

  const LEVEL = 0.05, POWER = 0.8, STEPS = 400;

  /* Lanczos's approximation of ln(gamma) */
  function lgamma(x) {
    const terms = [676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059, 12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7];
    const sum = terms.reduce((total, term, i) => total + term / (x + i), 0.99999999999980993), t = x + 6.5;
    return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(sum);
  }

  /* The regularized incomplete beta function of x, with rest = 1 - x (DLMF 8.17.22, by Lentz's algorithm) */
  function beta(x, rest, a, b) {
    if (x <= 0 || rest <= 0) return rest <= 0 ? 1 : 0;
    if (x > (a + 1) / (a + b + 2)) return 1 - beta(rest, x, b, a);
    const front = Math.exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * Math.log(x) + b * Math.log(rest)) / a;
    let c = 1, d = 1 / (1 - ((a + b) * x) / (a + 1)), value = d;
    for (let m = 1; m < 1000; m++) {
      const even = (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m)), odd = (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1));
      for (const term of [even, odd]) { c = 1 + term / c; d = 1 / (1 + term * d); value *= c * d; }
      if (Math.abs(c * d - 1) < 1e-15) break;
    }
    return front * value;
  }

  const tailAt = (angle, degrees) => beta(Math.cos(angle) ** 2, Math.sin(angle) ** 2, degrees / 2, 0.5) / 2;

  /* Where a rising function passes 0, by bisection */
  function root(rising, low, high, width = 1e-12) {
    while (high - low > width * Math.max(1, high)) {
      const middle = (low + high) / 2;
      if (rising(middle) > 0) high = middle; else low = middle;
    }
    return (low + high) / 2;
  }

  /* A quantile of Student's t, of a probability from 0.5 on */
  const tQuantile = (probability, degrees) => Math.tan(root((angle) => 1 - probability - tailAt(angle, degrees), 0, Math.PI / 2, 1e-15)) * Math.sqrt(degrees);

  /* The probability that a standard normal variable lies below z: with one of chi-squared's relatives, P(1/2, z²/2), as a series or a fraction */
  function normal(z) {
    const x = (z * z) / 2;
    if (x > 700) return z < 0 ? 0 : 1;
    let outside; // of -|z| to |z|
    if (x < 3) {
      let term = 2, sum = term;
      for (let n = 0.5; term > 1e-16 * sum; ) { n += 1; term *= x / n; sum += term; }
      outside = 1 - sum * Math.exp(-x) * Math.sqrt(x / Math.PI);
    } else {
      let b = x + 0.5, c = 1e300, d = 1 / b, h = d;
      for (let i = 1; i < 200; i++) {
        const a = -i * (i - 0.5);
        b += 2;
        d = 1 / (a * d + b);
        c = b + a / c;
        h *= d * c;
        if (Math.abs(d * c - 1) < 1e-15) break;
      }
      outside = h * Math.exp(-x) * Math.sqrt(x / Math.PI);
    }
    return z > 0 ? 1 - outside / 2 : outside / 2;
  }

  /* Half the width of the interval of a difference between two arms, which holds the true one with probability 1 - level */
  const half = (spread, seeds, level = LEVEL) => spread * Math.sqrt(2 / seeds) * tQuantile(1 - level / 2, 2 * (seeds - 1));

  /* The probability that a two-sided t test of two arms sees an effect */
  function power(effect, spread, seeds, level = LEVEL, critical = tQuantile(1 - level / 2, 2 * (seeds - 1))) {
    const degrees = 2 * (seeds - 1), shift = effect / (spread * Math.sqrt(2 / seeds)), step = (1 + 10 / Math.sqrt(2 * degrees)) / STEPS;
    const scale = Math.log(2) + (degrees / 2) * Math.log(degrees / 2) - lgamma(degrees / 2);
    let sum = 0; // Student's t is a normal variable over a chi variable: average over the latter
    for (let i = 0; i < STEPS; i++) {
      const s = step * (i + 0.5);
      sum += Math.exp(scale + (degrees - 1) * Math.log(s) - (degrees * s * s) / 2) * (normal(shift - critical * s) + normal(-shift - critical * s));
    }
    return step * sum;
  }

  function smallestEffect(spread, seeds, level = LEVEL, least = POWER) {
    const critical = tQuantile(1 - level / 2, 2 * (seeds - 1));
    let high = 1;
    while (power(high, 1, seeds, level, critical) < least) high *= 2;
    return spread * root((effect) => power(effect, 1, seeds, level, critical) - least, 0, high, 1e-5);
  }

  /* How many seeds an arm; Infinity: more than `most`. */
  function seedsNeeded(effect, spread, level = LEVEL, least = POWER, most = 100000) {
    let low = 1, high = 2;
    while (power(effect, spread, high, level) < least) { [low, high] = [high, 2 * high]; if (high > most) return Infinity; }
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (power(effect, spread, middle, level) >= least) high = middle; else low = middle;
    }
    return high;
  }

  if (typeof module === "object") { module.exports = { lgamma, normal, tQuantile, half, power, smallestEffect, seedsNeeded }; return; }
  const { html, svg, slider, button, result, significant, whole } = Widgets;

  Widgets.define("seeds", "How many seeds does a claim need?", async (body) => {
    const { examples } = await Widgets.data("seeds"), points = (v) => significant(v, 2), ticks = [2, 5, 10, 20, 50, 100];
    const spread = slider({ label: "spread of one run", min: -1.3, max: 1.2, step: 0.01, value: 0, show: (v) => points(10 ** v), change: draw });
    const effect = slider({ label: "true effect", min: -1, max: 1.3, step: 0.01, value: 0, show: (v) => points(10 ** v), change: draw });
    const seeds = slider({ label: "seeds an arm", min: 2, max: 100, value: 5, change: draw });
    const claims = slider({ label: "claims tested", min: 1, max: 20, value: 1, change: draw });
    const said = result(), drawing = svg("svg", { role: "img", "aria-label": "The interval of a measured difference, and the smallest effect by number of seeds" });
    const show = (one) => { spread.set(Math.log10(one.spread)); effect.set(Math.log10(one.effect)); seeds.set(one.seeds); claims.set(one.claims); draw(); };
    body.append(html("div", { class: "widget-row" }, examples.map((one) => button(one.title, () => show(one)))),
      html("div", { class: "widget-controls" }, spread.node, effect.node, seeds.node, claims.node), drawing, said.node,
      html("p", { class: "widget-note" }, "All in points of error. Spread: the standard deviation of one net's error over seeds. Two arms have so many seeds each, and are compared by Student's t. With more than one claim the dashed lines are Holm's first step: the smallest p-value of m claims must be below 0.05 / m. Seen: with a probability of 80 %."));

    let width = 0, key = "", curves = null;
    function shapes(level) { // per unit of spread, for numbers of seeds
      const at = [2, 3, 4, 5, 6, 8, 10, 14, 20, 30, 50, 70, 100];
      return at.map((n) => [n, smallestEffect(1, n, level)]);
    }
    function draw() {
      if (!width) return;
      const s = 10 ** spread.value, e = 10 ** effect.value, n = seeds.value, m = claims.value, level = LEVEL / m;
      if (key !== String(m)) { key = String(m); curves = m > 1 ? [shapes(LEVEL), shapes(level)] : [shapes(LEVEL)]; }
      const left = 46, right = width - 10, parts = [], halves = m > 1 ? [half(s, n), half(s, n, level)] : [half(s, n)];
      const text = (x, y, words, more = {}) => parts.push(svg("text", { x, y, "font-size": 12, ...more }, words));
      const line = (x1, y1, x2, y2, more) => parts.push(svg("line", { x1, y1, x2, y2, ...more }));
      text(0, 14, "A measured difference and its interval", { "font-weight": 600 });
      const most = halves[halves.length - 1], [low, high] = [Math.min(0, e - most), e + most], x = (v) => left + ((right - left) * (v - low + 0.05 * (high - low))) / (1.1 * (high - low));
      line(x(0), 24, x(0), 84, { stroke: "var(--w-muted)" });
      text(x(0), 98, "no effect", { "text-anchor": "middle", class: "quiet" });
      halves.forEach((h, i) => {
        const y = 38 + 24 * i, color = e > h ? "var(--w-good)" : "var(--w-cross)", dash = i ? "5 3" : null;
        line(x(e - h), y, x(e + h), y, { stroke: color, "stroke-width": 3, "stroke-dasharray": dash });
        for (const end of [e - h, e + h]) line(x(end), y - 6, x(end), y + 6, { stroke: color, "stroke-width": 2 });
        parts.push(svg("circle", { cx: x(e), cy: y, r: 5, fill: color }));
      });
      if (x(e) - x(0) > 60) text(x(e), 98, points(e), { "text-anchor": "middle" });
      text(0, 126, "The smallest effect seen, by seeds an arm", { "font-weight": 600 });
      const across = (v) => left + ((right - left) * Math.log(v / 2)) / Math.log(50), up = (v) => 300 - (160 * (Math.max(-1.5, Math.min(2, Math.log10(v))) + 1.5)) / 3.5;
      for (const power of [-1, 0, 1, 2]) { line(left, up(10 ** power), right, up(10 ** power), { stroke: "var(--w-line)" }); text(left - 6, up(10 ** power) + 4, String(10 ** power), { "text-anchor": "end", class: "quiet" }); }
      for (const tick of ticks) text(across(tick), 316, String(tick), { "text-anchor": "middle", class: "quiet" });
      line(left, up(e), right, up(e), { stroke: "var(--w-text)", "stroke-dasharray": "2 4" });
      text(right, up(e) - 5, "the true effect", { "text-anchor": "end" });
      curves.forEach((curve, i) => parts.push(svg("polyline", { points: curve.map(([at, v]) => across(at) + "," + up(v * s)).join(" "), fill: "none", stroke: "var(--w-first)", "stroke-width": 2, "stroke-dasharray": i ? "5 3" : null })));
      const seen = smallestEffect(s, n, level), needed = seedsNeeded(e, s, level);
      parts.push(svg("circle", { cx: across(n), cy: up(seen), r: 5, fill: e >= seen ? "var(--w-good)" : "var(--w-cross)" }));
      drawing.setAttribute("viewBox", `0 0 ${width} 322`);
      drawing.replaceChildren(...parts);
      said.say("With " + n + " seeds an arm the interval is ± " + points(halves[0]) + (m > 1 ? ", and ± " + points(halves[1]) + " after Holm over " + m + " claims" : "") + ". An effect of " + points(e) +
        " is seen with a probability of " + (100 * power(e, s, n, level)).toFixed(0) + " %; the smallest that is seen is " + points(seen) + ". To see " + points(e) + " takes " +
        (Number.isFinite(needed) ? whole(needed) : "more than 100,000") + " seeds an arm.");
    }
    new ResizeObserver(() => { const wide = Math.round(drawing.getBoundingClientRect().width); if (wide && wide !== width) { width = wide; draw(); } }).observe(drawing);
    spread.set(Math.log10(examples[0].spread)); effect.set(Math.log10(examples[0].effect)); seeds.set(examples[0].seeds); claims.set(examples[0].claims);
  });
})();
