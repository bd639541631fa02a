"""Plans: what may stand in one, and the digest that results keep."""

import re
import textwrap

import pytest
import yaml

from alexnet import claims
from alexnet.claims import plans
from alexnet.errors import InputError
from alexnet.keys import key

# the example in the module's docstring
EXAMPLE = yaml.safe_load(
    textwrap.dedent(re.search(r"\n\n(    ablations:.*?)\n\n", plans.__doc__, re.DOTALL)[1])
)


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "FOLDER", tmp_path)

    def write(content, profile="tiny-imagenet-cpu"):
        path = tmp_path / f"{profile}.yml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write


def changed(**fields):
    part = EXAMPLE["ablations"] | fields
    return {"ablations": {name: value for name, value in part.items() if value is not None}}


def test_the_example_is_a_plan(write):
    write(EXAMPLE)
    part = plans.of_profile("tiny-imagenet-cpu")["ablations"]
    assert part.seeds == 5 and part.margins == {"lrn-top1": 0.4, "columns-top1": 0.5}
    assert plans.digest("tiny-imagenet-cpu", "ablations") == part.digest == key(part.content)
    assert plans.digest("tiny-imagenet-cpu", "recipe") is None
    assert plans.digest("cifar10", "ablations") is None and plans.of_profile("cifar10") == {}


def test_the_digest_is_of_one_part_and_of_all_in_it(write):
    write(EXAMPLE)
    first = plans.digest("tiny-imagenet-cpu", "ablations")
    other = {"arms": ["text"], "seeds": 6, "steps": 15_000, "stopping": "it leaves", "metric": "s"}
    write(EXAMPLE | {"recipe": other | {"claims": {"recipe-trains": None}}})
    assert plans.digest("tiny-imagenet-cpu", "ablations") == first
    for fields in ({"seeds": 6}, {"epochs": 31}, {"claims": {"lrn-top1": 0.4}}, {"note": "x"}):
        write(changed(**fields))
        assert plans.digest("tiny-imagenet-cpu", "ablations") != first
    write("# a comment is no change\n" + yaml.safe_dump(EXAMPLE, sort_keys=True))
    assert plans.digest("tiny-imagenet-cpu", "ablations") == first


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"ablation": EXAMPLE["ablations"]}, "no experiment 'ablation' (did you mean 'ablations'"),
        (changed(epoch=3), "no part of a plan 'epoch' (did you mean 'epochs'"),
        (changed(seeds=None), "it lacks 'seeds'"),
        (changed(epochs=None), "it lacks the budget: epochs or steps"),
        (changed(seeds=0), "seeds is 0: give a whole number"),
        (changed(seeds=True), "seeds is True"),
        (changed(arms="full"), "arms is a list"),
        (changed(arms=["full", "no-lnr"]), "no arm 'no-lnr' (did you mean 'no-lrn'"),
        (changed(claims=["lrn-top1"]), "claims is a table"),
        (changed(claims={"lrn-top5": 0.4}), "no claim 'lrn-top5' (did you mean 'lrn-top1'"),
        (changed(claims={"biases": 1.2}), "claim 'biases' is not of this experiment"),
        (changed(claims={"lrn-top1": 0}), "claim 'lrn-top1' needs a margin above 0"),
        (changed(claims={"lrn-top1": None}), "claim 'lrn-top1' needs a margin above 0"),
        (changed(claims={"dropout-iterations": 0.9}), "needs a margin above 1"),
        ({"ablations": None}, "ablations: give arms, seeds"),
        ("just words", "holds no plan"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_it(write, content, said):
    path = write(content)
    with pytest.raises(InputError) as raised:
        plans.digest("tiny-imagenet-cpu", "ablations")
    (line,) = str(raised.value).splitlines()
    assert line.startswith(str(path)) and said in line, line


def test_shares_have_no_margin_and_a_profile_decides_only_what_claims_say(write):
    part = {"arms": ["text"], "seeds": 6, "steps": 9, "stopping": "at once", "metric": "m"}
    write({"recipe": part | {"claims": {"recipe-trains": 0.5}}})
    with pytest.raises(InputError, match="is a share: its margin is null"):
        plans.of_profile("tiny-imagenet-cpu")
    write(changed(), profile="cifar10")
    with pytest.raises(InputError, match=r"'cifar10' does not decide claim 'columns-top1'"):
        plans.of_profile("cifar10")


def test_the_plans_that_are_committed_can_be_read():
    for path in plans.FOLDER.glob("*.yml"):
        assert path.stem in claims.contents()["profiles"] and plans.of_profile(path.stem)
