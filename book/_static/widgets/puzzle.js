/* 224 or 227? Where conv1's windows fall at the right border, and what becomes of the sizes above. */
(function () {
  "use strict";

  /* One side of a map: windows of `kernel`, `stride` apart, over `size` pixels with `left` and `right` zeros. up: the last window may lack
     pixels, and reads zeros for them. */
  function output({ size, kernel, stride, left = 0, right = 0, up = false }) {
    const room = size + left + right - kernel;
    const windows = Math.max(0, up ? Math.ceil(room / stride) + 1 : Math.floor(room / stride) + 1);
    const reach = windows > 0 ? (windows - 1) * stride + kernel - left : 0; // of the last window, in pixels from the image's first
    return { windows, even: room % stride === 0, lacking: Math.max(0, reach - size), unread: Math.max(0, size - reach) };
  }

  const pool = (side, size = 3, stride = 2) => Math.floor((side - size) / stride) + 1;

  /* The sides of conv1's maps, and after each pooling layer: convolutions 2 to 5 keep sides. */
  function chain(windows) {
    const sides = [windows];
    for (let i = 0; i < 3; i++) sides.push(pool(sides[sides.length - 1]));
    return sides;
  }

  const WAYS = {
    floor: { label: "round down", of: (size) => ({ size, kernel: 11, stride: 4 }) },
    up: { label: "round up, zeros on the right (released source)", of: (size) => ({ size, kernel: 11, stride: 4, up: true }) },
    both: { label: "pad by 2 on both sides (torchvision)", of: (size) => ({ size, kernel: 11, stride: 4, left: 2, right: 2 }) },
  };

  if (typeof module === "object") { module.exports = { output, chain, pool, WAYS }; return; }
  const { html, svg, slider, choice, result, whole } = Widgets;

  Widgets.define("puzzle", "224 or 227? conv1's windows at the border", (body) => {
    const size = slider({ label: "image, pixels", min: 216, max: 236, value: 224, change: draw });
    const way = choice({ legend: "The border", options: Object.entries(WAYS).map(([key, { label }]) => [key, label]), value: "floor", change: draw });
    const drawing = svg("svg", { viewBox: "0 0 480 164", role: "img", "aria-label": "The last windows of conv1 at the right border of the image" });
    const said = result();
    body.append(html("div", { class: "widget-controls" }, size.node), way.node, drawing, said.node);

    function draw() {
      const found = WAYS[way.value].of(size.value), { windows, even, lacking, unread } = output(found);
      const left = found.left || 0, end = size.value + Math.max(lacking, found.right || 0);
      const first = size.value - 23, unit = 480 / 30, x = (pixel) => (pixel - first) * unit; // pixels first .. first + 30 are shown
      const parts = [];
      for (let pixel = first; pixel < Math.min(first + 30, end); pixel++) {
        const inside = pixel < size.value;
        parts.push(svg("rect", { x: x(pixel) + 1, y: 26, width: unit - 2, height: 20, rx: 2, fill: inside ? "var(--w-first)" : "none",
          stroke: inside ? "none" : "var(--w-muted)", "stroke-dasharray": inside ? null : "2 2", opacity: inside && pixel >= size.value - unread ? 0.3 : 1 }));
        if (!inside) parts.push(svg("text", { x: x(pixel + 0.5), y: 41, "text-anchor": "middle", "font-size": 13 }, "0"));
      }
      for (const pixel of [first + 1, size.value - 1]) parts.push(svg("text", { x: x(pixel + 0.5), y: 18, "text-anchor": "middle", "font-size": 13, class: "quiet" }, String(pixel)));
      const shown = Math.min(windows, 3);
      for (let i = 0; i < shown; i++) {
        const begin = (windows - shown + i) * 4 - left, y = 58 + 35 * i;
        parts.push(svg("rect", { x: x(begin), y, width: 11 * unit, height: 26, rx: 3, fill: "none", stroke: "var(--w-second)", "stroke-width": 2 }),
          svg("text", { x: Math.max(4, x(begin) + 6), y: y + 18, "font-size": 13 }, "window " + (windows - shown + i + 1)));
      }
      drawing.replaceChildren(...parts);
      const sides = chain(windows);
      const over = lacking ? "; the last lacks " + lacking + (lacking === 1 ? " pixel" : " pixels") + " and reads zeros" : unread ? "; " + (unread === 1 ? "the last pixel is" : "the last " + unread + " pixels are") + " never read" : even ? ", and it comes out even" : "";
      said.say(windows + " windows" + over + ". Sides of the maps: " + sides.join(" → ") + "; fc6 reads " + whole(256 * sides[3] ** 2) +
        " numbers. " + (sides[0] !== 55 ? "The paper's net has 55." : way.value === "up" && size.value === 224 ? "That is the paper's net." : "As many as in the paper's net."));
    }
    draw();
  });
})();
