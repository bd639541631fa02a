/* The net as Figure 2 draws it, layer by layer: every number comes from the package's own table, data/network.js. */
(function () {
  "use strict";

  const NAMES = { relu: "ReLU", tanh: "tanh", sigmoid: "logistic function", lrn: "response normalization", same_map_norm: "same-map normalization", pool: "max pooling", dropout: "dropout" };
  const BADGES = { lrn: "N", same_map_norm: "M", pool: "P", dropout: "D" };

  const NORMS = ["lrn", "same_map_norm"]; // highlighted together
  const isOf = (op, kind) => (kind === "lrn" ? NORMS.includes(op.kind) : op.kind === kind);

  /* What the marks of one kind say, all together. */
  function collected(layers, kind) {
    if (kind === "crossing") return layers.filter((layer) => layer.crossing).map((layer) => [layer.name, layer.crossing]);
    return layers.flatMap((layer) => layer.then.filter((op) => isOf(op, kind)).map((op) => [layer.name, op]));
  }

  /* Where a layer lies: its place along the net, and the place across of each column. tall: the net runs downward, for narrow pages. */
  function layout(tall) {
    const step = tall ? 76 : 83, lanes = tall ? [112, 252] : [98, 232];
    return {
      step, lanes, middle: (lanes[0] + lanes[1]) / 2,
      point: (along, across) => (tall ? [across, along] : [along, across]),
      size: (length, height) => (tall ? [height, length] : [length, height]),
      box: tall ? [360, 9 * step + 14] : [9 * step + 8, 312],
    };
  }

  if (typeof module === "object") { module.exports = { collected, layout }; return; }
  const { html, svg, choice, result, rove, whole } = Widgets;

  Widgets.define("architecture", "The architecture, layer by layer", async (body) => {
    const { presets } = await Widgets.data("network");
    const net = choice({ legend: "Net:", value: "paper", change: draw, options: Object.entries(presets).map(([key, { title }]) => [key, title]) });
    const light = choice({ legend: "Highlight:", value: "none", change: draw, options: [["none", "nothing"], ["pool", "pooling"], ["lrn", "normalization"], ["dropout", "dropout"], ["crossing", "what crosses"]] });
    const drawing = svg("svg", { role: "group", "aria-label": "The net's layers; choose one for its numbers" });
    const facts = html("dl", { class: "widget-facts" }), said = result();
    body.append(net.node, light.node, drawing, said.node, facts,
      html("p", { class: "widget-note" }, "Arrow keys walk through the layers. P: max pooling. N: response normalization. M: same-map normalization. D: dropout. Red: elements for one image that each column sends to the other."));
    let current = 1;

    const describe = (op) => NAMES[op.kind] + (op.kind === "pool" ? ` ${op.size} × ${op.size}, ${op.stride} apart` : op.kind === "lrn" ? `: n = ${op.size}, k = ${op.k}, α = ${op.alpha}, β = ${op.beta}`
      : op.kind === "same_map_norm" ? `: ${op.size} × ${op.size}, α = ${op.alpha}` : op.kind === "dropout" ? `, keeps ${op.keep}` : "");

    function draw() {
      const chosen = presets[net.value], layers = chosen.layers, tall = body.clientWidth > 0 && body.clientWidth < 560, plan = layout(tall), on = light.value;
      const two = chosen.columns === 2, colors = ["var(--w-first)", "var(--w-second)"];
      drawing.setAttribute("viewBox", `0 0 ${plan.box[0]} ${plan.box[1]}`);
      const lanes = two ? plan.lanes : [plan.middle], center = (slot) => plan.step * (slot + 0.5);
      const parts = [], groups = [], badges = [];
      const line = (from, to, attributes) => parts.push(svg("line", { x1: from[0], y1: from[1], x2: to[0], y2: to[1], ...attributes }));
      const height = (side, full) => (full ? 66 : 14 + 5.4 * Math.sqrt(side)), length = (maps, full) => (full ? 11 : 8 + 2.4 * Math.sqrt(maps));
      const rows = [{ name: "image", maps: 3, size: chosen.image_size, full: false, image: true, then: [] }, ...layers];
      rows.forEach((row, slot) => {
        row.along = length(row.maps, row.full);
        row.across = row.last ? 40 : row.image ? 76 : height(row.size, row.full);
        row.lanes = row.image || row.last ? [plan.middle] : lanes;
        if (slot === 0) return;
        const before = rows[slot - 1], begin = center(slot - 1) + before.along / 2, end = center(slot) - row.along / 2;
        before.lanes.forEach((from, i) => row.lanes.forEach((to, j) => {
          const other = before.lanes.length > 1 && row.lanes.length > 1 && i !== j;
          if (other && row.reads !== "both") return;
          const red = other || (row.last && two);
          line(plan.point(begin, from), plan.point(end, to), { stroke: red ? "var(--w-cross)" : "var(--w-muted)", "stroke-width": red && on === "crossing" ? 3 : 1.3, opacity: on !== "none" && !(red && on === "crossing") ? 0.35 : 1 });
        }));
        if (row.crossing) {
          const [x, y] = plan.point((begin + end) / 2, row.last ? plan.middle - (tall ? 44 : 46) : plan.middle);
          parts.push(svg("text", { x, y: y + 4 + (row.last && tall ? 14 : 0), "text-anchor": "middle", "font-size": 12, style: "fill: var(--w-cross)", "font-weight": on === "crossing" ? 700 : 400,
            "paint-order": "stroke", stroke: "var(--w-back)", "stroke-width": 5 }, whole(row.crossing)));
        }
      });
      rows.forEach((row, slot) => {
        const inner = [], dim = on === "none" || (on === "crossing" ? row.crossing : row.then.some((op) => isOf(op, on))) ? 1 : 0.35;
        const [hx, hy] = plan.point(center(slot) - plan.step / 2, 0), [hw, hh] = plan.size(plan.step, plan.box[tall ? 0 : 1]);
        inner.push(svg("rect", { class: "frame", x: hx + 2, y: hy + 2, width: hw - 4, height: hh - 4, rx: 6, fill: slot === current ? "var(--w-surface)" : "transparent" }));
        row.lanes.forEach((lane, column) => {
          const [x, y] = plan.point(center(slot), lane), [w, h] = plan.size(row.along, row.across);
          inner.push(svg("rect", { x: x - w / 2, y: y - h / 2, width: w, height: h, rx: 2, opacity: dim, fill: row.image || (row.last && two) ? "var(--w-muted)" : colors[column] }));
          row.then.filter((op) => BADGES[op.kind]).forEach((op, i) => {
            const [bx, by] = plan.point(center(slot) + row.along / 2 + 8 + 13 * i, lane), lit = isOf(op, on);
            badges.push(svg("circle", { cx: bx, cy: by, r: lit ? 9 : 6.5, fill: lit ? "var(--w-accent)" : "var(--w-back)", stroke: lit ? "none" : "var(--w-muted)", opacity: on === "none" || lit ? 1 : 0.5 }),
              svg("text", { x: bx, y: by + 3.6, "text-anchor": "middle", "font-size": 10, style: lit ? "fill: var(--w-back); font-weight: 700" : null }, BADGES[op.kind]));
          });
        });
        const shape = row.image ? `3 × ${row.size}²` : row.full ? String(row.last ? row.maps : `${two ? "2 × " : ""}${row.maps}`) : `${two ? "2 × " : ""}${row.maps}`;
        if (tall) inner.push(svg("text", { x: 6, y: center(slot), "font-size": 13, "font-weight": 600 }, row.name), svg("text", { x: 6, y: center(slot) + 15, "font-size": 11.5, class: "quiet" }, shape));
        else inner.push(svg("text", { x: center(slot), y: 20, "text-anchor": "middle", "font-size": 13, "font-weight": 600 }, row.name), svg("text", { x: center(slot), y: 36, "text-anchor": "middle", "font-size": 11.5, class: "quiet" }, shape),
          svg("text", { x: center(slot), y: 304, "text-anchor": "middle", "font-size": 11.5, class: "quiet" }, row.full ? "" : `${row.size} × ${row.size}`));
        const group = svg("g", { role: "button", "aria-label": sentence(row), onmouseenter: () => show(slot) }, inner);
        group.addEventListener("click", () => group.focus());
        groups.push(group);
      });
      drawing.replaceChildren(...groups, svg("g", { "pointer-events": "none" }, parts, badges));
      rove(groups, show);
      groups.forEach((group, i) => group.setAttribute("tabindex", i === current ? 0 : -1));

      function sentence(row) {
        if (row.image) return `image: 3 maps of ${row.size} × ${row.size}, ${whole(3 * row.size ** 2)} numbers`;
        return `${row.name}: ${whole(row.neurons)} neurons, ${whole(row.parameters)} parameters`;
      }
      function show(slot) {
        groups[current].querySelector(".frame").setAttribute("fill", "transparent");
        current = slot;
        groups[slot].querySelector(".frame").setAttribute("fill", "var(--w-surface)");
        tell();
      }
      function tell() {
        const row = rows[current], rowsOf = row.image ? [["numbers", whole(3 * row.size ** 2)]] : [
          ["reads", row.reads === "image" ? "the image" : row.reads === "both" ? "both columns" : two ? "its own column" : "the layer below"],
          ["each kernel", row.full ? `${whole(row.fan_in)} weights` : `${row.kernel} × ${row.kernel} × ${row.in_maps}, ${row.stride} apart`],
          [row.full ? "units" : "maps", row.last || !two ? whole(row.maps) : `2 × ${whole(row.maps)}`],
          ...(row.full ? [] : [["map", `${row.size} × ${row.size}`], ["after pooling", row.out_size < row.size ? `${row.out_size} × ${row.out_size}` : "—"], ["zeros around", row.pad[0] === row.pad[1] ? String(row.pad[0]) : `${row.pad[1]} on the right and bottom`]]),
          ["neurons", whole(row.neurons)], ["weights", whole(row.weights)], ["biases", whole(row.biases)], ["parameters", whole(row.parameters)], ["multiply-accumulates", whole(row.macs)],
          ["crosses, each way", row.crossing ? whole(row.crossing) : "nothing"], ["then", row.then.map(describe).join("; ") || "—"]];
        facts.replaceChildren(...rowsOf.map(([term, value]) => html("div", { class: term === "then" ? "wide" : null }, html("dt", {}, term), html("dd", {}, value))));
        const marks = on === "none" ? "" : on === "crossing"
          ? " Crossing each way: " + (collected(layers, on).map(([name, count]) => `${whole(count)} for ${name}`).join(", ") || "nothing, with one column") + "."
          : ` ${NAMES[on][0].toUpperCase() + NAMES[on].slice(1)}: ` + (collected(layers, on).map(([name, op]) => `after ${name}${op.kind === on ? "" : " " + NAMES[op.kind]}${describe(op).slice(NAMES[op.kind].length)}`).join("; ") || "none") + ".";
        said.say(`${sentence(row)}. The whole net: ${whole(chosen.neurons)} neurons, ${whole(chosen.parameters)} parameters, ${whole(chosen.macs)} multiply-accumulates.${marks}`);
      }
      tell();
    }
    draw();
    let width = 0; // of the last drawing: it is laid anew only where the page grows narrow or wide
    new ResizeObserver(() => { if (width !== body.clientWidth) { width = body.clientWidth; draw(); } }).observe(body);
  });
})();
