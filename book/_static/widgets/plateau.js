/* Signals and gradients of an AlexNet before its first step. A narrow net's forward pass and its backward pass are run anew for each setting;
   the rows are those of `alexnet.diagnosis.layer_sizes`. Maps are Float32Array in the order (map, row, column); weights have the merged layout. */
(function () {
  "use strict";

  /* --- random numbers, pictures, the net ------------------------------------------------------------------------------------------------- */

  function uniform(seed) { // mulberry32
    return () => {
      seed = (seed + 0x6d2b79f5) | 0;
      let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  function normals(count, seed) {
    const draw = uniform(seed), values = new Float32Array(count);
    for (let i = 0; i < count; i++) values[i] = Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw());
    return values;
  }

  /* A sum of waves whose frequencies are drawn evenly on a logarithmic scale, so that power falls as in photographs. Three colors, alike. */
  function picture(size, rms, seed) {
    const draw = uniform(seed), area = size * size, x = new Float32Array(3 * area);
    for (let wave = 0; wave < 40; wave++) {
      const frequency = (Math.PI / size) * size ** draw(), angle = 2 * Math.PI * draw(), phase = 2 * Math.PI * draw();
      const [fx, fy] = [frequency * Math.cos(angle), frequency * Math.sin(angle)], tint = [0, 1, 2].map(() => 1 + 0.6 * (draw() - 0.5));
      for (let i = 0, p = 0; i < size; i++) for (let j = 0; j < size; j++, p++) {
        const value = Math.cos(fx * j + fy * i + phase);
        for (let c = 0; c < 3; c++) x[c * area + p] += tint[c] * value;
      }
    }
    const factor = rms / Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / x.length);
    return x.map((value) => Math.max(-128, Math.min(127, factor * value)));
  }

  function build({ layers, size, images, classes, rms }) {
    const draw = uniform(7), rows = layers.map((layer, i) => {
      const shared = layer.last ? layer.columns : 1; // the last layer's columns read their own units each, and sum: together that is every unit
      const units = (layer.maps * layer.columns) / shared, fan_in = layer.fan_in * shared, weight = normals(units * fan_in, 100 + i).map((value) => value * layer.sigma);
      const square = weight.reduce((sum, value) => sum + value * value, 0);
      return { ...layer, units, fan_in, weight, rms: Math.sqrt(square / weight.length), groups: layer.reads === "own" && !layer.full ? layer.columns : 1 };
    });
    const pixels = Array.from({ length: images }, (_, i) => picture(size, rms, 1000 + i));
    const labels = pixels.map(() => Math.floor(classes * draw()));
    const unfolded = pixels.map((x) => unfold(x, rows[0], 0)); // what conv1 reads never changes but in scale
    const { in_size, pad } = rows[0], padded = in_size / (in_size + pad[0] + pad[1]), own = spread(pixels); // the package counts conv1's zeros as part of its image
    return { rows, pixels, labels, unfolded, image: { ...own, signal: padded * own.signal }, sums: unfolded.map((columns) => product(rows[0], [columns], 1, 0)) };
  }

  /* Root mean square over images and units, and the share of it that differs between images. */
  function spread(images) {
    let square = 0, apart = 0;
    for (let a = 0; a < images[0].length; a++) {
      let sum = 0, squares = 0;
      for (const x of images) { sum += x[a]; squares += x[a] * x[a]; }
      square += squares;
      apart += squares - (sum * sum) / images.length;
    }
    return { signal: Math.sqrt(square / images.length / images[0].length), differs: square ? Math.sqrt(Math.max(0, apart) / square) : 0 };
  }

  /* --- one layer -------------------------------------------------------------------------------------------------------------------------- */

  /* What each place of a group's maps reads, (fan-in, places). With `dx` the transpose: what comes back to the maps from there, added up. */
  function unfold(x, { kernel, stride, pad, in_size, in_maps, size, fan_in }, group, columns = new Float32Array(fan_in * size * size), dx = null) {
    for (let c = 0, at = 0; c < in_maps; c++) for (let u = 0; u < kernel; u++) for (let v = 0; v < kernel; v++) {
      const first = v - pad[0], from = Math.ceil(Math.max(0, -first) / stride), to = Math.min(size, Math.floor((in_size - 1 - first) / stride) + 1);
      for (let i = 0; i < size; i++, at += size) {
        const y = i * stride - pad[0] + u, line = ((group * in_maps + c) * in_size + y) * in_size + first;
        if (y < 0 || y >= in_size) continue;
        if (dx) for (let j = from; j < to; j++) dx[line + j * stride] += columns[at + j];
        else for (let j = from; j < to; j++) columns[at + j] = x[line + j * stride];
      }
    }
    return columns;
  }

  /* gain * weight x + bias, of a layer that reads `columns`, one matrix for each group */
  function product(row, columns, gain, bias) {
    const places = row.full ? 1 : row.size * row.size, share = row.units / row.groups, out = new Float32Array(row.units * places).fill(bias);
    for (let m = 0; m < row.units; m++) {
      const read = columns[Math.floor(m / share)];
      for (let k = 0; k < row.fan_in; k++) {
        const w = gain * row.weight[m * row.fan_in + k];
        for (let p = 0, o = m * places, a = k * places; p < places; p++) out[o + p] += w * read[a + p];
      }
    }
    return out;
  }

  /* Adds the gradient by the weights to `dw`; returns that by what was read, or nothing where nobody asks. */
  function productBack(row, columns, gain, ds, dw, below) {
    const places = row.full ? 1 : row.size * row.size, share = row.units / row.groups, dcolumns = below ? columns.map((c) => new Float32Array(c.length)) : null;
    const live = new Int32Array(places); // places with a gradient: below a pooling few have one
    for (let m = 0; m < row.units; m++) {
      const group = Math.floor(m / share), read = columns[group], back = below && dcolumns[group], o = m * places;
      let count = 0;
      for (let p = 0; p < places; p++) if (ds[o + p] !== 0) live[count++] = p;
      for (let k = 0; count && k < row.fan_in; k++) {
        const w = gain * row.weight[m * row.fan_in + k], a = k * places;
        let sum = 0;
        for (let n = 0; n < count; n++) sum += ds[o + live[n]] * read[a + live[n]];
        dw[m * row.fan_in + k] += sum;
        if (back) for (let n = 0; n < count; n++) back[a + live[n]] += w * ds[o + live[n]];
      }
    }
    return dcolumns;
  }

  /* What follows a layer's sums. Each returns its result and a function from the gradient by it to that by x. */
  const OPERATIONS = {
    relu: (x) => [x.map((value) => Math.max(0, value)), (dy) => dy.map((value, i) => (x[i] > 0 ? value : 0))],
    dropout: (x) => [x.map((value) => 0.5 * value), (dy) => dy.map((value) => 0.5 * value)], // as in evaluation
    lrn(x, side, { size, alpha, beta, k }, columns) {
      const area = side * side, maps = x.length / area, share = maps / columns, half = (size - 1) / 2, inner = new Float32Array(x.length);
      const near = (i) => [Math.max(Math.floor(i / share) * share, i - half), Math.min((Math.floor(i / share) + 1) * share - 1, i + half)];
      const gather = (values, i, p) => { const [from, to] = near(i); let sum = 0; for (let j = from; j <= to; j++) sum += values(j * area + p); return sum; };
      for (let i = 0; i < maps; i++) for (let p = 0; p < area; p++) inner[i * area + p] = k + alpha * gather((a) => x[a] * x[a], i, p);
      return [x.map((value, a) => value * inner[a] ** -beta), (dy) => {
        const dx = new Float32Array(x.length), each = dy.map((value, a) => value * x[a] * inner[a] ** (-beta - 1));
        for (let i = 0; i < maps; i++) for (let p = 0; p < area; p++) {
          const a = i * area + p;
          dx[a] = dy[a] * inner[a] ** -beta - 2 * alpha * beta * x[a] * gather((b) => each[b], i, p);
        }
        return dx;
      }];
    },
    pool(x, side, { size, stride }) {
      const out = Math.floor((side - size) / stride) + 1, maps = x.length / side / side, from = new Int32Array(maps * out * out);
      for (let m = 0, at = 0; m < maps; m++) for (let i = 0; i < out; i++) for (let j = 0; j < out; j++, at++) {
        let best = (m * side + i * stride) * side + j * stride;
        for (let u = 0; u < size; u++) for (let v = 0; v < size; v++) {
          const a = (m * side + i * stride + u) * side + j * stride + v;
          if (x[a] > x[best]) best = a;
        }
        from[at] = best;
      }
      return [Float32Array.from(from, (a) => x[a]), (dy) => { const dx = new Float32Array(x.length); from.forEach((a, i) => { dx[a] += dy[i]; }); return dx; }];
    },
  };

  /* --- the whole net ---------------------------------------------------------------------------------------------------------------------- */

  /* What `layer_sizes` says of the net with sigma (of the full-size net) in conv3 to conv5, with `bias` in place of biases of 1, and with
     pixels times `scale`. */
  function sizes(net, { sigma, bias, scale, rate }) {
    const gain = (row) => (/^conv[345]$/.test(row.name) ? sigma / 0.01 : 1), count = net.pixels.length, reads = net.rows.map(() => []), tapes = [], logits = [];
    for (let n = 0; n < count; n++) {
      let x = null, tape = [];
      net.rows.forEach((row, i) => {
        reads[i].push(x);
        const start = row.bias ? bias : 0, backs = [];
        const columns = i === 0 ? null : row.full ? [x] : Array.from({ length: row.groups }, (_, group) => unfold(x, row, group));
        let y = i === 0 ? net.sums[n].map((value) => value * scale + start) : product(row, columns, gain(row), start), side = row.size;
        for (const operation of row.then) {
          const [next, back] = OPERATIONS[operation.kind](y, side, operation, row.columns);
          if (operation.kind === "pool") side = row.out_size;
          backs.unshift(back);
          y = next;
        }
        tape.push({ row, columns, backs, length: x && x.length });
        x = y;
      });
      tapes.push(tape);
      logits.push(Array.from(x));
    }
    const loss = mean(logits.map((z, n) => -Math.log(softmax(z)[net.labels[n]])));
    const fitted = fittedBiases(logits, net.labels), gradients = net.rows.map((row) => new Float32Array(row.weight.length));
    tapes.forEach((tape, n) => {
      const p = softmax(logits[n].map((z, i) => z + fitted[i]));
      let dy = Float32Array.from(p, (share, i) => (share - (i === net.labels[n])) / count);
      for (let i = tape.length - 1; i >= 0; i--) {
        const { row, columns, backs, length } = tape[i];
        for (const back of backs) dy = back(dy);
        if (i === 0) productBack(row, [net.unfolded[n]], 1, dy.map((value) => value * scale), gradients[0], false);
        else {
          const dcolumns = productBack(row, columns, gain(row), dy, gradients[i], true);
          dy = row.full ? dcolumns[0] : new Float32Array(length);
          if (!row.full) dcolumns.forEach((each, group) => unfold(null, row, group, each, dy));
        }
      }
    });
    const rows = net.rows.map((row, i) => {
      const own = row.rms * gain(row), update = (rate * Math.sqrt(mean(gradients[i].map((value) => value * value)))) / own;
      const read = i ? spread(reads[i]) : { ...net.image, signal: scale * net.image.signal };
      return { layer: row.name, ...read, plateau: update * Math.sqrt(count / 64) };
    });
    return { rows, loss, pace: Math.exp(mean(rows.map((row) => Math.log(row.plateau)))) };
  }

  const mean = (values) => { let sum = 0; for (const value of values) sum += value; return sum / values.length; };

  function softmax(z) {
    const top = Math.max(...z), e = z.map((value) => Math.exp(value - top)), sum = e.reduce((a, b) => a + b);
    return e.map((value) => value / sum);
  }

  /* What added to the logits gives each class its frequency among the labels. */
  function fittedBiases(logits, labels) {
    const counts = logits[0].map((_, i) => Math.max(1e-3, labels.filter((label) => label === i).length)), all = counts.reduce((a, b) => a + b);
    let biases = counts.map(() => 0);
    for (let round = 0; round < 50; round++) {
      const shares = logits.map((z) => softmax(z.map((value, i) => value + biases[i])));
      biases = biases.map((value, i) => value + Math.log(counts[i] / all) - Math.log(Math.max(1e-30, mean(shares.map((p) => p[i])))));
    }
    return biases;
  }

  if (typeof module === "object") { module.exports = { build, sizes, fittedBiases }; return; }
  const { html, svg, slider, button, result, significant } = Widgets;

  Widgets.define("plateau", "Will it leave the plateau? Signals and gradients before the first step", async (body) => {
    const data = await Widgets.data("plateau"), net = build(data), { limits, known } = data;
    const chance = Math.log(data.classes), pixelsTo = (scale) => "0 to " + significant(255 * scale, scale > 0.4 ? 3 : 2), power10 = (power) => "10" + [...String(power)].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("");
    const sigma = slider({ label: "σ in conv3 to conv5", min: -2.6, max: -1, step: 0.01, value: -2, show: (v) => significant(10 ** v, 2), change: later });
    const bias = slider({ label: "biases", min: 0, max: 2, step: 0.05, value: 1, show: (v) => v.toFixed(2), change: later });
    const scale = slider({ label: "pixels count from", min: -2.41, max: 0, step: 0.01, value: 0, show: (v) => pixelsTo(10 ** v), change: later });
    const said = result(), drawing = svg("svg", { role: "img", "aria-label": "Signal and update of each layer, and the pace of the whole net" });
    const runs = known.map((run, i) => html("li", {}, button(run.title, () => { sigma.set(Math.log10(run.sigma)); bias.set(run.bias); scale.set(Math.log10(run.scale)); draw(); }),
      html("span", {}, " " + run.said)));
    body.append(html("div", { class: "widget-controls" }, sigma.node, bias.node, scale.node), drawing, said.node,
      html("ol", { class: "widget-runs" }, runs), html("p", { class: "widget-note" }, data.note));
    let waiting = 0;
    function later() { cancelAnimationFrame(waiting); waiting = requestAnimationFrame(draw); }
    const settings = (run) => ({ sigma: run.sigma, bias: run.bias, scale: run.scale, rate: data.rate });
    const paces = known.map(() => null);
    function next() { // one at a time, so that the page answers meanwhile
      const i = paces.indexOf(null);
      if (i < 0) return draw();
      paces[i] = sizes(net, settings(known[i])).pace;
      setTimeout(next, 0);
    }

    let width = 0, now = null;
    function draw() {
      now = sizes(net, { sigma: 10 ** sigma.value, bias: bias.value, scale: 10 ** scale.value, rate: data.rate });
      paint();
    }
    function paint() {
      if (!now || !width) return;
      const left = 46, right = width - 8, slot = (right - left) / now.rows.length, parts = [];
      const text = (x, y, words, more = {}) => parts.push(svg("text", { x, y, "font-size": 12, ...more }, words));
      const log = (low, high, top, bottom) => (v) => bottom - ((bottom - top) * (Math.log10(Math.max(v, 1e-300)) - low)) / (high - low);
      const inside = (y, top, bottom) => Math.max(top, Math.min(bottom, y));
      const lines = (y, powers) => powers.forEach((power) => {
        parts.push(svg("line", { x1: left, x2: right, y1: y(10 ** power), y2: y(10 ** power), stroke: "var(--w-line)" }));
        text(left - 5, y(10 ** power) + 4, (power ? power10(power) : "1"), { "text-anchor": "end", class: "quiet", "font-size": 11 });
      });
      text(0, 14, "Signal read; filled: what differs between images", { "font-weight": 600 });
      const signal = log(-4, 3, 24, 150);
      lines(signal, [-4, -2, 0, 2]);
      now.rows.forEach(({ layer, signal: whole, differs }, i) => {
        const x = left + i * slot + slot * 0.2, w = slot * 0.6, top = inside(signal(whole), 20, 150), part = inside(signal(whole * differs), 20, 150);
        parts.push(svg("rect", { x, y: top, width: w, height: 150 - top, fill: "none", stroke: "var(--w-muted)" }), svg("rect", { x, y: part, width: w, height: 150 - part, fill: "var(--w-first)" }));
        text(x + w / 2, 166, layer, { "text-anchor": "middle", "font-size": Math.min(12, slot / 3.2) });
      });
      text(0, 192, "A step on the plateau, as a share of the weights", { "font-weight": 600 });
      const update = log(-8, -1, 202, 290);
      lines(update, [-8, -6, -4, -2]);
      const points = now.rows.map(({ plateau }, i) => [left + (i + 0.5) * slot, inside(update(plateau), 200, 292)]);
      parts.push(svg("polyline", { points: points.map((p) => p.join(",")).join(" "), fill: "none", stroke: "var(--w-second)", "stroke-width": 2 }),
        ...points.map(([cx, cy]) => svg("circle", { cx, cy, r: 4, fill: "var(--w-second)" })));
      text(0, 318, "Pace: their geometric mean", { "font-weight": 600 });
      const across = (v) => left + ((right - left) * inside(Math.log10(v) + 7, 0, 4.5)) / 4.5;
      parts.push(svg("rect", { x: left, y: 344, width: across(limits.pace) - left, height: 16, fill: "var(--w-cross)", opacity: 0.18 }), svg("line", { x1: left, x2: right, y1: 360, y2: 360, stroke: "var(--w-line)" }));
      for (const power of [-7, -6, -5, -4, -3]) text(across(10 ** power), 380, power10(power), { "text-anchor": "middle", class: "quiet", "font-size": 11 });
      known.forEach((run, i) => {
        if (paces[i] === null) return;
        const x = across(paces[i]), color = run.trains ? "var(--w-good)" : "var(--w-cross)";
        parts.push(run.trains ? svg("circle", { cx: x, cy: 352, r: 5, fill: color }) : svg("path", { d: `M${x - 4} 348l8 8m0 -8l-8 8`, stroke: color, "stroke-width": 2.5 }));
        text(x, 341, String(i + 1), { "text-anchor": "middle" });
      });
      const x = across(now.pace);
      parts.push(svg("path", { d: `M${x} 360l6 10h-12z`, fill: "var(--w-text)" }));
      drawing.setAttribute("viewBox", `0 0 ${width} 386`);
      drawing.replaceChildren(...parts);
      const last = now.rows[now.rows.length - 1], least = Math.min(...now.rows.map((row) => row.differs));
      const verdict = now.loss > chance + limits.excess ? "The first loss is " + significant(now.loss, 2) + " nats: the net is surely wrong, and its first steps throw the weights away."
        : least < limits.differs ? "To the upper layers all images look alike: a net that stays on its plateau."
        : now.pace < limits.pace ? "Steps are too small: a net that stays on its plateau for very long."
        : "Nothing known to keep a net from training.";
      said.say("fc8 reads " + significant(last.signal, 2) + ", of which " + significant(100 * last.differs, 2) + " % differs between images; the pace is " + significant(now.pace, 2) + ". " + verdict);
    }
    new ResizeObserver(() => { const wide = Math.round(drawing.getBoundingClientRect().width); if (wide && wide !== width) { width = wide; paint(); } }).observe(drawing);
    draw();
    setTimeout(next, 0);
  });
})();
