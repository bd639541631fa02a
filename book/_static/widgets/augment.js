/* Section 4.1 on one photograph: a crop, its reflection, and a shift of all colors along the principal axes of the data's colors. */
(function () {
  "use strict";

  /* What is added to every pixel's R, G, B, in gray levels, and what the sum is then multiplied by. draws: one for each axis, from a normal
     distribution of standard deviation 0.1; eigenvalues of the covariance of RGB in 0..255; axes: eigenvectors as columns. */
  function colorShift(draws, { eigenvalues, eigenvectors }, reading) {
    const reach = { text: (value) => value / 255, "text-255": (value) => value, source: Math.sqrt }[reading];
    const shift = eigenvectors.map((row) => row.reduce((sum, entry, axis) => sum + entry * reach(eigenvalues[axis]) * draws[axis], 0));
    return { shift, scale: reading === "source" ? 1 / 1.1 : 1 };
  }

  /* How many different crops and reflections there are. */
  const views = (image, crop) => 2 * (image - crop + 1) ** 2;

  /* Two independent draws from a normal distribution out of two from a uniform one (Box and Muller). */
  const normal = (u, v) => [Math.sqrt(-2 * Math.log(1 - u)) * Math.cos(2 * Math.PI * v), Math.sqrt(-2 * Math.log(1 - u)) * Math.sin(2 * Math.PI * v)];

  if (typeof module === "object") { module.exports = { colorShift, views, normal }; return; }
  const { html, svg, id, slider, choice, toggle, button, result, whole } = Widgets;
  const IMAGE = 256, CROP = 224;

  Widgets.define("augment", "Crops, reflections and colors of one photograph", async (body) => {
    const { photo, name, axes } = await Widgets.data("photo");
    const left = slider({ label: "crop, left", min: 0, max: IMAGE - CROP, value: 16, change: draw });
    const above = slider({ label: "crop, top", min: 0, max: IMAGE - CROP, value: 16, change: draw });
    const draws = [1, 2, 3].map((axis) => slider({ label: "axis " + axis, min: -0.3, max: 0.3, step: 0.01, value: 0, show: (v) => v.toFixed(2), change: draw }));
    const mirror = toggle({ label: "mirror it", change: draw });
    const reading = choice({ legend: "Colors:", value: "text", change: draw, options: [["text", "the text, RGB in 0..1"], ["text-255", "the text, RGB in 0..255"], ["source", "the released source"]] });
    const basis = choice({ legend: "Axes of:", value: Object.keys(axes)[0], change: draw, options: Object.entries(axes).map(([key, { title }]) => [key, title]) });
    const said = result(), filter = id(), clip = id();
    const functions = ["R", "G", "B"].map((channel) => svg("feFunc" + channel, { type: "linear" }));
    const picture = () => svg("image", { href: photo, width: IMAGE, height: IMAGE });
    const frame = svg("rect", { width: CROP, height: CROP, fill: "none", stroke: "#fff", "stroke-width": 3 });
    const outer = svg("rect", { width: CROP, height: CROP, fill: "none", stroke: "#000", "stroke-width": 1 });
    const whole256 = svg("svg", { viewBox: `0 0 ${IMAGE} ${IMAGE}`, role: "img", "aria-label": "The photograph, " + name + ", 256 by 256 pixels, with a frame where it is cropped" }, picture(), frame, outer);
    const moved = svg("g", { filter: `url(#${filter})` }, picture());
    const seen = svg("svg", { viewBox: `0 0 ${CROP} ${CROP}`, role: "img", "aria-label": "What the net sees, 224 by 224 pixels" },
      svg("defs", {}, svg("filter", { id: filter, x: 0, y: 0, width: 1, height: 1, "color-interpolation-filters": "sRGB" }, svg("feComponentTransfer", {}, functions)),
        svg("clipPath", { id: clip }, svg("rect", { width: CROP, height: CROP }))), svg("g", { "clip-path": `url(#${clip})` }, moved));
    let grip = null; // where in the frame the pointer holds it, in pixels of the photograph
    const at = (event) => { const box = whole256.getBoundingClientRect(); return [((event.clientX - box.left) / box.width) * IMAGE - left.value, ((event.clientY - box.top) / box.height) * IMAGE - above.value]; };
    whole256.style.cssText = "cursor: grab; touch-action: none";
    whole256.addEventListener("pointerdown", (event) => { grip = at(event); whole256.setPointerCapture(event.pointerId); event.preventDefault(); });
    whole256.addEventListener("pointermove", (event) => {
      if (!grip) return;
      const [x, y] = at(event);
      left.set(Math.round(left.value + x - grip[0])); // a slider keeps to its range
      above.set(Math.round(above.value + y - grip[1]));
      draw();
    });
    for (const end of ["pointerup", "pointercancel"]) whole256.addEventListener(end, () => { grip = null; });
    body.append(html("div", { class: "widget-row" }, button("Draw at random", random), button("As it is", plain), mirror.node),
      html("div", { class: "widget-controls" }, left.node, above.node, ...draws.map((each) => each.node)), reading.node, basis.node,
      html("div", { class: "widget-pair", style: "max-width: 36rem" }, whole256, seen), said.node, html("p", { class: "widget-note" }, "Drag the frame, or use the sliders."));

    function random() {
      const at = () => Math.floor(Math.random() * (IMAGE - CROP + 1));
      left.set(at()); above.set(at()); mirror.set(Math.random() < 0.5);
      const drawn = [...normal(Math.random(), Math.random()), ...normal(Math.random(), Math.random())];
      draws.forEach((each, axis) => each.set(0.1 * drawn[axis]));
      draw();
    }
    function plain() { left.set(16); above.set(16); mirror.set(false); draws.forEach((each) => each.set(0)); draw(); }

    function draw() {
      const { shift, scale } = colorShift(draws.map((each) => each.value), axes[basis.value], reading.value), mean = axes[basis.value].mean;
      // the net is given scale * (pixel - mean + shift); shown is that plus the mean
      functions.forEach((node, channel) => { node.setAttribute("slope", scale); node.setAttribute("intercept", (scale * (shift[channel] - mean[channel]) + mean[channel]) / 255); });
      for (const each of [frame, outer]) { each.setAttribute("x", left.value); each.setAttribute("y", above.value); }
      moved.setAttribute("transform", (mirror.value ? `translate(${CROP} 0) scale(-1 1) ` : "") + `translate(${-left.value} ${-above.value})`);
      const sizes = axes[basis.value].eigenvalues.map((value) => Math.sqrt(value).toFixed(0)).join(", ");
      said.say("Added to red, green and blue: " + shift.map((value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(1)).join(", ") + " gray levels" + (scale < 1 ? ", and all is divided by 1.1" : "") +
        ". The colors spread by " + sizes + " along the three axes. There are " + whole(views(IMAGE, CROP)) + " crops and reflections of one image; the paper counts 2,048.");
    }
    draw();
  });
})();
