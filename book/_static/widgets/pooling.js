/* Max pooling with windows of z, s apart: which pixels a window reads, how many windows read a pixel, and what is left over. */
(function () {
  "use strict";

  /* Windows along a side. Of those that hang over, none begins beyond it: there would be nothing to read (as in torch). */
  function count(side, z, s, ceil) {
    const windows = Math.max(0, (ceil ? Math.ceil((side - z) / s) : Math.floor((side - z) / s)) + 1);
    return ceil && (windows - 1) * s >= side ? windows - 1 : windows;
  }

  /* The maximum of each window, row by row; map: rows of numbers. ceil: the last windows may hang over the border. */
  function maxPool(map, z, s, ceil = false) {
    const side = map.length, windows = count(side, z, s, ceil), out = [];
    for (let i = 0; i < windows; i++) {
      out.push([]);
      for (let j = 0; j < windows; j++) {
        let best = -Infinity;
        for (let y = i * s; y < Math.min(i * s + z, side); y++) for (let x = j * s; x < Math.min(j * s + z, side); x++) if (map[y][x] > best) best = map[y][x];
        out[i].push(best);
      }
    }
    return out;
  }

  /* How many windows read each place of one side. */
  function readers(side, z, s, ceil = false) {
    const times = Array(side).fill(0), windows = count(side, z, s, ceil);
    for (let i = 0; i < windows; i++) for (let y = i * s; y < Math.min(i * s + z, side); y++) times[y]++;
    return times;
  }

  if (typeof module === "object") { module.exports = { count, maxPool, readers }; return; }
  const { html, svg, slider, toggle, button, result, rove } = Widgets;
  const SIDE = 13;

  Widgets.define("pooling", "Pooling with windows of z, s apart", (body) => {
    // a response that a sloping edge might give: a ridge across the map, with a smaller one beside it
    const map = Array.from({ length: SIDE }, (_, y) => Array.from({ length: SIDE }, (_, x) => {
      const ridge = Math.exp(-((x - 3 - 0.55 * y) ** 2) / 2.2), second = 0.6 * Math.exp(-((x - 10 + 0.2 * y) ** 2 + (y - 3) ** 2) / 3);
      return Math.round(99 * Math.min(1, ridge + second + 0.12 * Math.abs(Math.sin(3 * x + 5 * y))));
    }));
    const z = slider({ label: "z, window", min: 1, max: 6, value: 3, change: draw });
    const s = slider({ label: "s, step", min: 1, max: 6, value: 2, change: draw });
    const ceil = toggle({ label: "the last windows may hang over the border", change: draw });
    const set = (size, step) => () => { z.set(size); s.set(step); draw(); };
    const drawing = svg("svg", { viewBox: "0 0 312 312", role: "img", "aria-label": "A map of 13 by 13 responses" });
    const result2d = svg("svg", { viewBox: "0 0 312 312", role: "group", "aria-label": "The pooled map; choose a place of it to see its window" });
    const said = result();
    body.append(html("div", { class: "widget-row" }, button("the paper's: z = 3, s = 2", set(3, 2)), button("tiles: z = 2, s = 2", set(2, 2)), ceil.node),
      html("div", { class: "widget-controls" }, z.node, s.node), html("div", { class: "widget-pair", style: "max-width: 40rem" }, drawing, result2d), said.node);

    function draw() {
      const pooled = maxPool(map, z.value, s.value, ceil.value), times = readers(SIDE, z.value, s.value, ceil.value), parts = [];
      const unit = 24, shade = (value) => "color-mix(in srgb, var(--w-first) " + Math.round(0.6 * value) + "%, var(--w-back))";
      map.forEach((row, y) => row.forEach((value, x) => parts.push(svg("rect", { x: x * unit + 1, y: y * unit + 1, width: unit - 2, height: unit - 2, fill: times[y] * times[x] ? shade(value) : "none",
        stroke: times[y] * times[x] ? "none" : "var(--w-line)" }),
        svg("text", { x: (x + 0.5) * unit, y: (y + 0.5) * unit + 4, "text-anchor": "middle", "font-size": 12, opacity: times[y] * times[x] ? 1 : 0.5 }, String(value)))));
      const frame = svg("rect", { fill: "none", stroke: "var(--w-second)", "stroke-width": 3, rx: 3 });
      const side = pooled.length, wide = Math.min(unit, 312 / side), cells = [];
      pooled.forEach((row, i) => row.forEach((value, j) => {
        const cell = svg("g", { role: "button", "aria-label": "row " + (i + 1) + ", column " + (j + 1) + ": maximum " + value, onmouseenter: () => point(i, j) },
          svg("rect", { class: "frame", x: j * wide + 1, y: i * wide + 1, width: wide - 2, height: wide - 2, fill: shade(value) }),
          svg("text", { x: (j + 0.5) * wide, y: (i + 0.5) * wide + 4, "text-anchor": "middle", "font-size": 12 }, String(value)));
        cell.addEventListener("click", () => cell.focus());
        cells.push(cell);
      }));
      drawing.replaceChildren(...parts, frame);
      result2d.replaceChildren(...cells);
      result2d.setAttribute("viewBox", `0 0 ${Math.max(1, side * wide)} ${Math.max(1, side * wide)}`);
      result2d.style.maxWidth = (100 * side * wide) / 312 + "%"; // cells as large as the map's
      rove(cells, (at) => point(Math.floor(at / side), at % side), side);
      const most = Math.max(...times) ** 2, lost = times.filter((t) => t === 0).length;
      const where = lost === 1 ? "row and column are" : lost + " rows and columns are";
      const left = lost ? (s.value > z.value ? " Of each side " + lost + (lost === 1 ? " place is" : " places are") : " The last " + where) + " never read." : "";
      const relation = s.value < z.value ? "overlap" : s.value === z.value ? "tile the map" : "leave gaps";
      const summary = side + " × " + side + " windows, which " + relation + "; a pixel is read by up to " + most + "." + left;
      const three = [55];
      for (let i = 0; i < 3; i++) three.push(count(three[i], z.value, s.value, ceil.value));
      const sizes = three[3] > 0 ? " Three such layers would take 55 to " + three.slice(1).join(", ") + "." : " Three such layers would leave nothing of a map of 55.";
      function point(i, j) {
        const top = i * s.value, from = j * s.value, tall = Math.min(z.value, SIDE - top), across = Math.min(z.value, SIDE - from);
        cells.forEach((cell, at) => { const taken = at === i * side + j, box = cell.firstChild; box.setAttribute("stroke", taken ? "var(--w-second)" : "none"); box.setAttribute("stroke-width", 3); });
        for (const [key, value] of Object.entries({ x: from * unit, y: top * unit, width: across * unit, height: tall * unit })) frame.setAttribute(key, value);
        said.say("Row " + (i + 1) + ", column " + (j + 1) + ": the largest of " + tall + " × " + across + " is " + pooled[i][j] + ". " + summary + sizes);
      }
      if (side) point(0, Math.min(1, side - 1));
      else { frame.remove(); said.say("No window fits."); }
    }
    draw();
  });
})();
