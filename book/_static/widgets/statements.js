/* What the text says beside what the released program does, statement by statement: alexnet/labnotebook.yml, through data/statements.js. */
(function () {
  "use strict";

  /* The statements of a topic and a finding; "all" stands for each. */
  const chosen = (statements, topic, finding) => statements.filter((one) => (topic === "all" || one.topic === topic) && (finding === "all" || one.finding === finding));

  /* How many there are of each finding, in the order of `findings`; none is left out. */
  const counts = (statements, findings) => Object.keys(findings).map((key) => [key, statements.filter((one) => one.finding === key).length]);

  if (typeof module === "object") { module.exports = { chosen, counts }; return; }
  const { html, choice, result } = Widgets;

  Widgets.define("statements", "The text beside the released program", async (body) => {
    const { topics, findings, statements } = await Widgets.data("statements");
    const topic = choice({ legend: "Topic:", value: "all", change: draw, options: [["all", "all"], ...topics.map((name) => [name, name])] });
    const finding = choice({ legend: "Finding:", value: "differs", change: draw, options: [["all", "all"], ...Object.entries(findings)] });
    const list = html("ul", { class: "statements" }), said = result();
    body.append(topic.node, finding.node, said.node, list);

    const card = (one) => html("li", {},
      html("p", { class: "statement-head" }, html("span", { class: "badge-" + one.finding }, findings[one.finding]), " ", html("span", { class: "quiet" }, one.topic + ", section " + one.section)),
      html("div", { class: "statement-pair" },
        html("div", {}, html("p", { class: "statement-who" }, "The text"), html("p", {}, one.paper)),
        html("div", {}, html("p", { class: "statement-who" }, "The program"), html("p", {}, one.source), html("p", { class: "statement-refs" }, one.refs))),
      html("p", {}, html("strong", {}, "What it matters. "), one.matters),
      html("p", { class: "quiet" }, "Presets here. ", one.here));

    function draw() {
      const shown = chosen(statements, topic.value, finding.value), of = chosen(statements, topic.value, "all");
      list.replaceChildren(...shown.map(card));
      const parts = counts(of, findings).filter(([, n]) => n).map(([key, n]) => n + " " + ({ same: "agree", differs: n === 1 ? "differs" : "differ", silent: n === 1 ? "is left open by the text" : "are left open by the text", slip: n === 1 ? "is a slip" : "are slips" })[key]);
      said.say("Shown: " + shown.length + " of " + statements.length + ". Of the " + of.length + " statements" + (topic.value === "all" ? "" : " on " + topic.value) + ", " + parts.join(", ") + ".");
    }
    draw();
  });
})();
