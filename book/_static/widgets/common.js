/* What the figures to play with share. A page says <div data-widget="NAME">fallback</div>; the script NAME.js is fetched only where a page
   has one, and numbers from the package, data/NAME.js, which the book's build writes, only where a figure asks for them. Classic scripts
   all, so that the pages work from file:// too. */
(function () {
  "use strict";

  const here = document.currentScript.src.replace(/[^/]*$/, "");
  const mounts = {}, datasets = {}, scripts = {};
  let count = 0;

  function load(path) {
    scripts[path] = scripts[path] || new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = here + path;
      script.onload = resolve;
      script.onerror = () => reject(new Error(path + " is missing"));
      document.head.append(script);
    });
    return scripts[path];
  }

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value === true) node.setAttribute(name, "");
      else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined));
    return node;
  }

  const html = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  /* Lettering keeps its size in CSS pixels however wide the drawing is: --unit is how much of the drawing one pixel is. */
  const svg = (tag, attributes, ...children) => {
    const { "font-size": size, style, ...others } = attributes || {};
    const lettering = size ? `font-size: calc(${size}px * var(--unit, 1)); ${style || ""}` : style;
    return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), { ...others, style: lettering }, children);
  };
  const sized = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const { width } = target.getBoundingClientRect();
      if (width) target.style.setProperty("--unit", (target.viewBox.baseVal.width / width).toFixed(3));
    }
  });
  const id = () => "widget-" + ++count;

  /* A labeled range. Its value is read by .value, set by .set(); `show` turns a value into what stands beside it and what is read out. */
  function slider({ label, min, max, step = 1, value, show = String, change }) {
    const name = id();
    const input = html("input", { type: "range", id: name, min, max, step, value });
    const shown = html("output", { for: name });
    const self = {
      node: html("div", { class: "widget-slider" }, html("label", { for: name }, label), input, shown),
      get value() { return Number(input.value); },
      set(next) { input.value = next; told(); },
      limit(low, high) { input.min = low; input.max = high; told(); },
    };
    function told() {
      shown.textContent = show(self.value);
      input.setAttribute("aria-valuetext", show(self.value));
    }
    input.addEventListener("input", () => { told(); change(); });
    told();
    return self;
  }

  /* One of several: radio buttons, which the arrow keys walk through. options: [[value, label], ...]. */
  function choice({ legend, options, value, change }) {
    const name = id();
    const inputs = options.map(([key]) => html("input", { type: "radio", name, id: id(), value: key, checked: key === value, onchange: () => change() }));
    return {
      node: html("fieldset", { class: "widget-choice" }, html("legend", {}, legend),
        options.map(([, label], i) => html("span", {}, inputs[i], html("label", { for: inputs[i].id }, label)))),
      get value() { return inputs.find((input) => input.checked).value; },
      set(next) { for (const input of inputs) input.checked = input.value === next; },
    };
  }

  function toggle({ label, value = false, change }) {
    const input = html("input", { type: "checkbox", id: id(), checked: value, onchange: () => change() });
    return {
      node: html("span", { class: "widget-toggle" }, input, html("label", { for: input.id }, label)),
      get value() { return input.checked; },
      set(next) { input.checked = next; },
    };
  }

  const button = (label, press) => html("button", { type: "button", onclick: press }, label);

  /* A sentence that says what came out. It is read out once the hand rests, not at every step of a slider. */
  function result() {
    const seen = html("p", { class: "widget-result" });
    const spoken = html("p", { class: "widget-spoken", "aria-live": "polite" });
    let timer = 0;
    return {
      node: html("div", {}, seen, spoken),
      say(text) {
        const first = seen.textContent === "";
        seen.textContent = text;
        clearTimeout(timer);
        if (!first) timer = setTimeout(() => { spoken.textContent = text; }, 400);
      },
    };
  }

  /* Arrow keys, Home and End move the focus among `nodes`, of which one at a time is in the page's tab order. `across`: how many in a row. */
  function rove(nodes, focused, across = nodes.length) {
    const take = (i) => nodes.forEach((node, j) => node.setAttribute("tabindex", i === j ? 0 : -1));
    take(0);
    nodes.forEach((node, i) => {
      node.addEventListener("focus", () => { take(i); focused(i); });
      node.addEventListener("keydown", (event) => {
        const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: across < nodes.length ? -across : -1, ArrowDown: across < nodes.length ? across : 1 };
        const next = event.key === "Home" ? 0 : event.key === "End" ? nodes.length - 1 : event.key in steps ? i + steps[event.key] : -1;
        if (next in nodes) nodes[next].focus();
        if (event.key in steps || event.key === "Home" || event.key === "End") event.preventDefault();
      });
    });
  }

  const whole = (number) => Math.round(number).toLocaleString("en-US");
  const significant = (number, digits = 3) => {
    if (number === 0) return "0";
    const size = Math.abs(number);
    if (size >= 1e-3 && size < 1e6) return String(Number(number.toPrecision(digits)));
    const [mantissa, exponent] = number.toExponential(digits - 1).split("e");
    return Number(mantissa) + " × 10" + [...String(Number(exponent))].map((c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]).join("");
  };

  window.Widgets = {
    html, svg, id, slider, choice, toggle, button, result, rove, whole, significant,
    still: () => matchMedia("(prefers-reduced-motion: reduce)").matches,
    define(name, title, mount) { mounts[name] = { title, mount }; },
    provide(name, value) { datasets[name] = value; },
    data: (name) => load("data/" + name + ".js").then(() => datasets[name]),
    load,
  };

  async function start(place) {
    const name = place.dataset.widget;
    try {
      await load(name + ".js");
      const { title, mount } = mounts[name];
      const heading = html("p", { class: "widget-title", id: id() }, title);
      const body = html("div", { class: "widget-body" });
      const frame = html("div", { class: "widget", role: "group", "aria-labelledby": heading.id }, heading, body);
      await mount(body, place.dataset);
      body.querySelectorAll("svg").forEach((drawing) => sized.observe(drawing));
      place.replaceChildren(frame);
      place.dataset.ready = "yes";
    } catch (error) {
      place.dataset.ready = "no"; // the fallback stays; what is missing is said below it
      place.append(html("p", { class: "widget-missing" }, "This figure could not be drawn: " + error.message + ". `make book` writes all it needs."));
    }
  }

  const all = () => document.querySelectorAll("[data-widget]").forEach(start);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", all);
  else all();
})();
