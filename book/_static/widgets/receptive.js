/* What a unit sees: its window in the picture, through all layers below it, and how it responds, in the page's trained net. */
(function () {
  "use strict";

  /* Of each stage (conv1, pool1, ...): its name, side and maps, and the window of its unit i along a side: [start + i step, start + i step + size). */
  function stages(layers) {
    const found = [];
    let size = 1, step = 1, start = 0;
    for (const layer of layers) {
      start -= layer.pad[0] * step;
      size += (layer.kernel - 1) * step;
      step *= layer.stride;
      const maps = layer.maps * layer.columns;
      found.push({ name: layer.name, side: layer.size, maps, size, step, start });
      for (const op of layer.then.filter(({ kind }) => kind === "pool")) {
        size += (op.size - 1) * step;
        step *= op.stride;
        found.push({ name: layer.name.replace("conv", "pool"), side: layer.out_size, maps, size, step, start });
      }
    }
    return found;
  }

  const window1d = ({ start, step, size }, i) => [start + i * step, start + i * step + size];

  /* The unit whose window has its center next to a pixel. */
  const nearest = (stage, pixel) => Math.max(0, Math.min(stage.side - 1, Math.round((pixel - stage.start - stage.size / 2) / stage.step)));

  /* The share of a unit's window that lies within a picture of so many pixels a side. */
  function inside(stage, i, j, pixels) {
    const within = [i, j].map((at) => { const [from, to] = window1d(stage, at); return Math.min(to, pixels) - Math.max(from, 0); });
    return (within[0] * within[1]) / stage.size ** 2;
  }

  if (typeof module === "object") { module.exports = { stages, window1d, nearest, inside }; return; }

  Widgets.define("receptive", "What a unit sees", async (body) => {
    await Widgets.load("net.js");
    const { html, svg, choice, slider, button, result, significant } = Widgets, packed = await Widgets.data("net");
    const { build, bytes } = WidgetNet, { image_size: pixels, layers, across } = packed.wide, all = stages(layers);
    const picture = html("canvas", { width: pixels, height: pixels }), paper = picture.getContext("2d", { willReadFrequently: true });
    paper.imageSmoothingQuality = "high";
    const tile = pixels / across;
    await Promise.all(packed.samples.slice(0, across * across).map(async ({ src }, i) => {
      const image = new Image();
      image.src = src;
      await image.decode();
      paper.drawImage(image, (i % across) * tile, Math.floor(i / across) * tile, tile, tile);
    }));
    const { data } = paper.getImageData(0, 0, pixels, pixels), colors = new Float32Array(3 * pixels * pixels);
    for (let p = 0; p < pixels * pixels; p++) for (let c = 0; c < 3; c++) colors[3 * p + c] = data[4 * p + c];
    const mean = [0, 0, 0], image = bytes(packed.net.mean, Uint8Array);
    image.forEach((value, i) => { mean[i % 3] += value / (image.length / 3); });
    const seen = {};
    build({ ...packed.net, layers, mean, image_size: pixels }).forward(colors, (layer, x, side, kind) => { seen[kind === "pool" ? layer.name.replace("conv", "pool") : layer.name] = x; });

    let row = 0, column = 0;
    const stage = choice({ legend: "Layer:", value: "conv3", options: all.map(({ name }) => [name, name]), change: () => { fit(); strongest(); } });
    const map = slider({ label: "map", min: 0, max: 1, value: 0, change: draw });
    const said = result(), now = () => all.find(({ name }) => name === stage.value);
    const shade = svg("path", { fill: "var(--w-back)", opacity: 0.7, "fill-rule": "evenodd" }), frame = svg("rect", { fill: "none", stroke: "var(--w-cross)", "stroke-width": 2 });
    const left = svg("svg", { viewBox: `0 0 ${pixels} ${pixels}`, role: "img", style: "cursor: crosshair; overflow: hidden", "aria-label": "The picture, and the window of the unit" },
      svg("image", { href: picture.toDataURL(), width: pixels, height: pixels }), shade, frame);
    const tiles = html("canvas", {}), cell = html("div", { class: "receptive-cell" });
    const right = html("div", { class: "receptive-map", tabindex: 0, role: "application", "aria-label": "The map; arrow keys choose a unit" }, tiles, cell);
    body.append(stage.node, html("div", { class: "widget-controls" }, map.node), html("div", { class: "widget-row" }, button("Strongest unit of this map", strongest), button("Map that responds most here", loudest)),
      html("div", { class: "widget-pair", style: "max-width: 44rem" }, left, right), said.node,
      html("p", { class: "widget-note" }, `The convolutions of the page's net, trained on pictures of ${packed.net.image_size} pixels, on ${across * across} of its test pictures side by side, ${pixels} pixels in all: the paper's size, so windows are as large as in the paper's net. Point at the map or at the picture, or use the arrow keys on the map.`));

    const own = () => { const { side } = now(); return seen[stage.value].subarray(map.value * side * side, (map.value + 1) * side * side); };
    function fit() {
      const { side, maps } = now();
      map.limit(0, maps - 1);
      [row, column] = [Math.min(row, side - 1), Math.min(column, side - 1)];
    }
    function strongest() {
      const values = own(), best = values.indexOf(Math.max(...values));
      go(Math.floor(best / now().side), best % now().side);
    }
    function loudest() {
      const { side, maps } = now(), values = Array.from({ length: maps }, (_, m) => seen[stage.value][(m * side + row) * side + column]);
      map.set(values.indexOf(Math.max(...values)));
      draw();
    }
    function go(i, j) {
      const { side } = now();
      [row, column] = [Math.max(0, Math.min(side - 1, i)), Math.max(0, Math.min(side - 1, j))];
      draw();
    }
    function draw() {
      const at = now(), { side, size } = at, values = own(), most = Math.max(...values, 1e-9), context = tiles.getContext("2d");
      tiles.width = tiles.height = side;
      const drawn = context.createImageData(side, side);
      values.forEach((value, p) => drawn.data.set([59, 111, 160, (255 * value) / most], 4 * p)); // over the theme's background
      context.putImageData(drawn, 0, 0);
      Object.assign(cell.style, { left: (100 * column) / side + "%", top: (100 * row) / side + "%", width: 100 / side + "%", height: 100 / side + "%" });
      const [top] = window1d(at, row), [from] = window1d(at, column);
      for (const [key, value] of Object.entries({ x: from, y: top, width: size, height: size })) frame.setAttribute(key, value);
      shade.setAttribute("d", `M0 0H${pixels}V${pixels}H0ZM${from} ${top}h${size}v${size}h${-size}Z`);
      const share = inside(at, row, column, pixels), value = values[row * side + column];
      said.say(`${at.name}, map ${map.value}, row ${row + 1}, column ${column + 1} of ${side}: responds with ${significant(Math.max(0, value), 2)}, the map's largest is ${significant(Math.max(...values), 2)}. ` +
        `It sees ${size} × ${size} pixels` + (share < 1 ? `; ${(100 * (1 - share)).toFixed(0)} % of them lie outside the picture.` : "."));
    }
    const point = (node, act) => {
      const follow = (event) => {
        const box = node.getBoundingClientRect();
        act((event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width);
      };
      node.addEventListener("pointermove", follow);
      node.addEventListener("pointerdown", follow);
    };
    point(right, (down, over) => go(Math.floor(down * now().side), Math.floor(over * now().side)));
    point(left, (down, over) => go(nearest(now(), down * pixels), nearest(now(), over * pixels)));
    right.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!steps) return;
      event.preventDefault();
      go(row + steps[0], column + steps[1]);
    });
    fit();
    strongest();
  });
})();
