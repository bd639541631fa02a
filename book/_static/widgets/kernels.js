/* conv1's learned kernels, column by column. */
(function () {
  "use strict";

  const decode = (text) => Int8Array.from(atob(text), (c) => c.charCodeAt(0));

  /* Of one kernel (3, 11, 11), flat: the share of its energy off the gray axis, 0 (gray, or empty) to 1 (pure color). */
  function colorfulness(kernel) {
    const area = kernel.length / 3;
    let energy = 0, off = 0;
    for (let i = 0; i < area; i++) {
      const pixel = [kernel[i], kernel[i + area], kernel[i + 2 * area]], mean = (pixel[0] + pixel[1] + pixel[2]) / 3;
      for (const value of pixel) { energy += value * value; off += (value - mean) ** 2; }
    }
    return energy > 0 ? off / energy : 0;
  }

  /* Red, green, blue and opacity of its pixels, each kernel on its own scale around gray. */
  function paint(kernel) {
    const area = kernel.length / 3, pixels = new Uint8ClampedArray(4 * area);
    const largest = kernel.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1;
    for (let i = 0; i < area; i++) {
      for (let channel = 0; channel < 3; channel++) pixels[4 * i + channel] = 127.5 + (127.5 * kernel[channel * area + i]) / largest;
      pixels[4 * i + 3] = 255;
    }
    return pixels;
  }

  if (typeof module === "object") { module.exports = { decode, colorfulness, paint }; return; }
  const { html, choice, toggle, result, rove } = Widgets;

  Widgets.define("kernels", "conv1's kernels, by column and seed", async (body) => {
    const { sets, missing } = await Widgets.data("kernels");
    const said = result(), shelf = html("div"), seeds = html("div");
    const order = toggle({ label: "most colorful first", change: draw });
    const which = choice({ legend: "Net:", options: sets.map((set, i) => [String(i), set.title]), value: "0", change: pick });
    let seed = null;
    body.append(which.node, html("div", { class: "widget-row" }, seeds, order.node), shelf, said.node);
    if (missing.length) body.append(html("p", { class: "widget-note" }, "Not yet run: " + missing.join("; ") + "."));

    function pick() {
      const set = sets[Number(which.value)], names = Object.keys(set.seeds);
      seed = choice({ legend: "Seed:", options: names.map((name) => [name, name]), value: names[0], change: draw });
      seeds.replaceChildren(seed.node);
      draw();
    }

    function draw() {
      const set = sets[Number(which.value)], bytes = decode(set.seeds[seed.value]), each = bytes.length / set.maps, all = [];
      for (let i = 0; i < set.maps; i++) all.push({ i, kernel: bytes.subarray(i * each, (i + 1) * each) });
      for (const one of all) one.color = colorfulness(one.kernel);
      const tiles = [], share = set.maps / set.columns, means = [];
      const blocks = Array.from({ length: set.columns }, (_, column) => {
        const own = all.slice(column * share, (column + 1) * share);
        means.push(own.reduce((sum, one) => sum + one.color, 0) / share);
        if (order.value) own.sort((a, b) => b.color - a.color);
        return html("div", {}, html("p", { style: `color: var(--w-${column ? "second" : "first"})` }, set.columns > 1 ? "column " + column : "the one column"),
          html("div", { class: "widget-pictures" }, own.map((one) => {
            const tile = html("canvas", { width: set.side, height: set.side, style: "width: 3rem; height: 3rem", role: "img", "aria-label": "map " + one.i + ", color " + (100 * one.color).toFixed(0) + " percent" });
            tile.getContext("2d").putImageData(new ImageData(paint(one.kernel), set.side), 0, 0);
            tile.addEventListener("mouseenter", () => tell(one));
            tile.addEventListener("click", () => tile.focus());
            tiles.push([tile, one]);
            return tile;
          })));
      });
      shelf.replaceChildren(html("div", { class: "widget-pair" }, blocks));
      rove(tiles.map(([tile]) => tile), (at) => tell(tiles[at][1]));
      const summary = "Share of the kernels' energy that is color: " + means.map((mean, column) => "column " + column + " " + (100 * mean).toFixed(0) + " %").join(", ") + ".";
      const tell = (one) => said.say("Map " + one.i + ": " + (100 * one.color).toFixed(0) + " % of its energy is color. " + summary);
      said.say(summary + " The paper's columns parted: one became gray, the other colored.");
    }
    pick();
  });
})();
