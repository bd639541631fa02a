/* A small trained AlexNet at work in the page: a picture goes in, probabilities and the layers' responses come out. Nothing leaves the page. */
(function () {
  "use strict";

  Widgets.define("classify", "A trained AlexNet in this page", async (body) => {
    await Widgets.load("net.js");
    const { html, svg, id, choice, button, result } = Widgets, packed = await Widgets.data("net");
    const { build, softmax } = WidgetNet, net = build(packed.net), { names } = packed.net, size = net.size, margin = packed.prepared / size;
    const said = result(), shelf = html("div", { class: "widget-pictures" }), bars = svg("svg", { viewBox: "0 0 320 150", role: "img", "aria-label": "The five most probable classes" });
    const canvas = html("canvas", { width: size, height: size, style: "width: 10rem; height: 10rem", role: "img", "aria-label": "What the net is given" });
    const maps = html("canvas", { style: "width: 100%", role: "img", "aria-label": "Responses of the layer's maps, one tile each" });
    const file = html("input", { type: "file", accept: "image/*", id: id(), onchange: () => { if (file.files[0]) open(URL.createObjectURL(file.files[0]), "your picture", null); } });
    const draw2d = canvas.getContext("2d", { willReadFrequently: true });
    const spatial = packed.net.layers.filter((layer) => !layer.full).map((layer) => layer.name);
    const layer = choice({ legend: "Show:", value: "conv1", options: spatial.map((name) => [name, name]), change: paint });
    let seen = {}, now = 0;
    const pictures = packed.samples.map(({ src, label }, i) => {
      const press = button("", () => open(src, "test picture " + (i + 1), label));
      press.setAttribute("aria-label", "Test picture " + (i + 1) + ": " + label);
      press.style.padding = "0.2rem";
      press.append(html("img", { src, alt: "", width: 48, height: 48 }));
      return press;
    });
    shelf.append(...pictures);
    body.append(html("p", {}, "It knows ten pictographs: " + names.join(", ") + ". Choose a test picture, or one of your own; it is not sent anywhere."),
      shelf, html("div", { class: "widget-row" }, html("label", { for: file.id, style: "margin: 0" }, "Your picture:"), file),
      html("div", { class: "widget-pair" }, html("div", {}, canvas), bars), said.node, layer.node, maps,
      html("p", { class: "widget-note" }, "The bluer a tile, the stronger the response; one scale for all maps of a layer. " + packed.note));

    /* The picture's center square, as large as the training images were prepared, and of that the center that the net reads. */
    function open(src, what, label) {
      const image = new Image(), turn = ++now;
      image.onload = () => {
        if (turn !== now) return;
        pictures.forEach((press, i) => press.setAttribute("aria-pressed", src === packed.samples[i].src));
        const short = Math.min(image.naturalWidth, image.naturalHeight), part = short / margin;
        draw2d.fillRect(0, 0, size, size); // black, as where a picture is transparent for the package too; and nothing is left of the last one
        draw2d.imageSmoothingQuality = "high";
        draw2d.drawImage(image, (image.naturalWidth - part) / 2, (image.naturalHeight - part) / 2, part, part, 0, 0, size, size);
        URL.revokeObjectURL(src);
        run(what, label);
      };
      image.onerror = () => {
        if (turn !== now) return;
        URL.revokeObjectURL(src);
        for (const drawn of [draw2d, maps.getContext("2d")]) drawn.clearRect(0, 0, drawn.canvas.width, drawn.canvas.height);
        bars.replaceChildren();
        seen = {};
        said.say("That file is no picture that this browser can read.");
      };
      image.src = src;
    }

    function run(what, label) {
      const { data } = draw2d.getImageData(0, 0, size, size), pixels = new Float32Array(3 * size * size);
      for (let p = 0; p < size * size; p++) for (let c = 0; c < 3; c++) pixels[3 * p + c] = data[4 * p + c];
      seen = {};
      const began = performance.now();
      const chances = softmax(net.forward(pixels, (row, x, side) => { if (!row.full) seen[row.name] = { x, side, columns: row.columns }; }));
      const took = performance.now() - began, best = chances.map((chance, i) => [chance, i]).sort((a, b) => b[0] - a[0]).slice(0, 5);
      bars.replaceChildren(...best.flatMap(([chance, i], row) => [
        svg("text", { x: 92, y: 22 + 28 * row, "text-anchor": "end", "font-size": 14 }, names[i]),
        svg("rect", { x: 100, y: 8 + 28 * row, width: Math.max(1, 160 * chance), height: 20, rx: 2, fill: names[i] === label ? "var(--w-good)" : "var(--w-first)" }),
        svg("text", { x: 106 + 160 * chance, y: 22 + 28 * row, "font-size": 13 }, (100 * chance).toFixed(0) + " %")]));
      said.say("For " + what + (label ? ", which shows " + label : "") + ": " + names[best[0][1]] + ", " + (100 * best[0][0]).toFixed(0) + " %. Computed here in " + Math.max(1, Math.round(took)) + " ms.");
      paint();
    }

    function paint() {
      const found = seen[layer.value];
      if (!found) return;
      const { x, side, columns } = found, count = x.length / (side * side), across = count / columns, gap = 1, context = maps.getContext("2d");
      const most = x.reduce((a, b) => Math.max(a, b), 1e-9); // of all maps: a weak map stays pale
      const folds = Math.ceil(across / 12), wide = Math.ceil(across / folds); // a column's maps in rows of at most twelve
      maps.width = wide * (side + gap);
      maps.height = columns * folds * (side + gap) + gap;
      maps.style.maxWidth = Math.min(36, wide * 3) + "rem";
      context.clearRect(0, 0, maps.width, maps.height);
      for (let m = 0; m < count; m++) {
        const own = x.subarray(m * side * side, (m + 1) * side * side), tile = context.createImageData(side, side);
        for (let p = 0; p < own.length; p++) tile.data.set([59, 111, 160, 25 + (230 * own[p]) / most], 4 * p); // over the theme's background
        const column = Math.floor(m / across), place = m % across;
        context.putImageData(tile, (place % wide) * (side + gap), (column * folds + Math.floor(place / wide)) * (side + gap) + column * gap);
      }
      maps.setAttribute("aria-label", "Responses of " + layer.value + "'s " + count + " maps, one tile each, column " + (columns > 1 ? "0 above column 1" : "0"));
    }
    pictures[1].click();
  });
})();
