/* AlexNet's forward pass in plain JavaScript: convolutions in columns, response normalization, overlapping pooling, full connection.
   Maps are Float32Array in the order (map, row, column). */
(function () {
  "use strict";

  const bytes = (text, Type) => {
    const raw = typeof Buffer === "function" ? Buffer.from(text, "base64") : Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    return new Type(raw.buffer, raw.byteOffset, raw.length / Type.BYTES_PER_ELEMENT);
  };

  /* weights of a layer, float32, from signed bytes and one scale for each output unit */
  function unpack({ shape, scales, bytes: text }) {
    const steps = bytes(text, Int8Array), each = steps.length / shape[0], values = new Float32Array(steps.length);
    for (let i = 0; i < values.length; i++) values[i] = steps[i] * scales[Math.floor(i / each)];
    return values;
  }

  function conv(x, { inMaps, inSize, maps, size, kernel, stride, pad, weight, bias, columns }) {
    // inMaps: read by each kernel. Columns that read their own maps only take the share of x that is theirs.
    const out = new Float32Array(maps * size * size), share = maps / columns, area = inSize * inSize, own = x.length / area !== inMaps;
    for (let m = 0; m < maps; m++) {
      const first = own ? Math.floor(m / share) * inMaps : 0;
      for (let i = 0; i < size; i++) for (let j = 0; j < size; j++) {
        let sum = bias[m];
        const top = i * stride - pad[0], left = j * stride - pad[0];
        const u0 = Math.max(0, -top), u1 = Math.min(kernel, inSize - top), v0 = Math.max(0, -left), v1 = Math.min(kernel, inSize - left);
        for (let c = 0; c < inMaps; c++) for (let u = u0; u < u1; u++) {
          const w = ((m * inMaps + c) * kernel + u) * kernel, a = (first + c) * area + (top + u) * inSize + left;
          for (let v = v0; v < v1; v++) sum += weight[w + v] * x[a + v];
        }
        out[(m * size + i) * size + j] = sum;
      }
    }
    return out;
  }

  function full(x, { maps, weight, bias }) {
    // A last layer's columns read their own units each, and sum: together that is every unit.
    const out = new Float32Array(maps), fanIn = x.length;
    for (let m = 0; m < maps; m++) {
      let sum = bias[m];
      for (let i = 0; i < fanIn; i++) sum += weight[m * fanIn + i] * x[i];
      out[m] = sum;
    }
    return out;
  }

  const relu = (x) => x.map((value) => Math.max(0, value));

  function lrn(x, side, { size, alpha, beta, k }, columns) {
    const out = new Float32Array(x.length), area = side * side, maps = x.length / area, share = maps / columns, half = (size - 1) / 2;
    for (let i = 0; i < maps; i++) {
      const begin = Math.floor(i / share) * share, from = Math.max(begin, i - half), to = Math.min(begin + share - 1, i + half);
      for (let p = 0; p < area; p++) {
        let sum = 0;
        for (let j = from; j <= to; j++) sum += x[j * area + p] ** 2;
        out[i * area + p] = x[i * area + p] * Math.pow(k + alpha * sum, -beta);
      }
    }
    return out;
  }

  function maxPool(x, side, { size, stride }) {
    const windows = Math.floor((side - size) / stride) + 1, maps = x.length / (side * side), out = new Float32Array(maps * windows * windows);
    for (let m = 0, at = 0; m < maps; m++) for (let i = 0; i < windows; i++) for (let j = 0; j < windows; j++, at++) {
      let best = -Infinity;
      for (let u = 0; u < size; u++) for (let v = 0; v < size; v++) best = Math.max(best, x[(m * side + i * stride + u) * side + j * stride + v]);
      out[at] = best;
    }
    return out;
  }

  /* The network of a description as scripts/widget_data.py writes it. */
  function build({ layers, weights, biases, mean, image_size: size }) {
    const image = typeof mean === "string" ? bytes(mean, Uint8Array) : null; // (row, column, channel); or one number a channel
    const table = layers.map((layer) => ({
      ...layer, maps: layer.maps * (layer.last ? 1 : layer.columns), inMaps: layer.in_maps, inSize: layer.in_size,
      weight: unpack(weights[layer.name + ".weight"]), bias: Float32Array.from(biases[layer.name + ".bias"]),
    }));

    /* pixels: RGB, 0..255, (row, column, channel), as many as the net reads. Returns the last layer's sums.
       each(layer, maps, side, kind) sees what a layer's sums are and what each step after them makes of them. */
    function forward(pixels, each = () => {}) {
      const area = size * size;
      let x = new Float32Array(3 * area), side = size;
      for (let p = 0; p < area; p++) for (let c = 0; c < 3; c++) x[c * area + p] = pixels[3 * p + c] - (image ? image[3 * p + c] : mean[c]);
      for (const layer of table) {
        x = layer.full ? full(x, layer) : conv(x, layer);
        side = layer.full ? 1 : layer.size;
        each(layer, x, side, "sums");
        for (const op of layer.then) {
          if (op.kind === "relu") x = relu(x);
          else if (op.kind === "lrn") x = lrn(x, side, op, layer.columns);
          else if (op.kind === "pool") { x = maxPool(x, side, op); side = Math.floor((side - op.size) / op.stride) + 1; }
          else if (op.kind === "dropout") x = x.map((value) => value * op.keep); // all units, at test time
          else throw new Error("a page's net has no " + op.kind);
          each(layer, x, side, op.kind);
        }
      }
      return x;
    }
    return { forward, size };
  }

  function softmax(logits) {
    const most = Math.max(...logits), powers = Array.from(logits, (value) => Math.exp(value - most)), sum = powers.reduce((a, b) => a + b, 0);
    return powers.map((value) => value / sum);
  }

  const all = { build, softmax, bytes, unpack, conv, full, lrn, maxPool, relu };
  if (typeof module === "object") module.exports = all;
  else window.WidgetNet = all;
})();
