"""A run's key follows its preset's table where that is not the recorded one, and only then."""

from dataclasses import asdict, replace

import pytest

from alexnet import presets
from alexnet.errors import InputError
from alexnet.presets import recorded
from alexnet.training import Config, folder

SETTINGS = {"num_classes": 3, "width": 1.0, "image_size": 64, "epochs": 1.0, "data": {}}


def config(preset, **fields):
    return Config(preset=preset, **SETTINGS | fields)


def with_layer(preset, name, **changes):
    """The preset with another row of that name."""
    rows = (replace(row, **changes) if row.name == name else row for row in preset.layers)
    return replace(preset, layers=tuple(rows))


def test_the_tables_are_the_recorded_ones():
    assert len(recorded.recorded()) > 200
    for name, digest in recorded.recorded().items():
        assert recorded.digest(presets.get(name)) == digest, (
            f"the table of {name} has changed: if that is meant, remove its line from "
            "presets/recorded.yml, so that its models are trained anew and others are kept"
        )


@pytest.mark.parametrize("preset", ["paper", "source/no-lrn", "paper/sigma-0.03/no-lrn/tanh"])
def test_a_recorded_table_adds_nothing_to_the_key(preset):
    one = config(preset)
    assert one.table is None
    assert config(preset, table="f" * 16) == one == Config(**asdict(one))


KEYS = {  # of models that are kept under them since the first archive
    "paper": "a86a26426c20b476",
    "source/no-lrn": "3820848b1624c3ed",
    "paper/sigma-0.03/no-lrn/tanh": "5690bc280346096a",
}


@pytest.mark.parametrize("preset", KEYS)
def test_keys_are_what_they_have_been(preset):
    assert config(preset).identity == KEYS[preset]


def test_a_number_in_a_net_changes_the_keys_of_its_models_alone(monkeypatch):
    names = ("paper", "paper/no-lrn", "source", "four-layer")
    before = {name: config(name).identity for name in names}
    changed = with_layer(presets.PRESETS["paper"], "conv3", sigma=0.02)
    monkeypatch.setitem(presets.PRESETS, "paper", changed)
    after = {name: config(name).identity for name in names}
    assert {name for name in names if before[name] != after[name]} == {"paper", "paper/no-lrn"}
    assert config("paper").table == recorded.digest(presets.get("paper"))
    monkeypatch.setitem(presets.PRESETS, "paper", replace(changed, gain=1.0))
    assert config("paper").identity not in (before["paper"], after["paper"])


def test_a_number_in_a_recipe_or_a_variant_changes_keys(monkeypatch):
    names = ("paper/no-decay", "paper/sigma-0.03/no-decay", "paper/no-lrn")
    before = {name: config(name).identity for name in names}
    variant = presets.with_recipe(weight_decay=1e-6)
    monkeypatch.setitem(presets.VARIANTS, "no-decay", variant)
    assert [config(name).identity == before[name] for name in names] == [False, False, True]


def test_what_is_new_has_its_table_in_the_key(monkeypatch):
    keys = set()
    for rate in (0.1, 0.2):
        monkeypatch.setitem(presets.VARIANTS, "new", presets.with_recipe(rate=rate))
        keys.add(config("paper/new").identity)
    assert len(keys) == 2


def test_a_younger_field_counts_where_it_is_not_its_default(monkeypatch):
    paper = presets.get("paper")
    monkeypatch.setattr(recorded, "YOUNGER", {("Layer", "local"), ("Layer", "decay")})
    assert recorded.digest(paper) != recorded.recorded()["paper"]
    without = recorded.digest(paper)
    assert recorded.digest(with_layer(paper, "conv5", decay=0.0)) != without


def test_a_run_of_another_table_is_refused(monkeypatch, tmp_path):
    folder.write_json(tmp_path / folder.CONFIG, asdict(config("paper")))
    assert folder.read_config(tmp_path) == config("paper")
    changed = with_layer(presets.PRESETS["paper"], "conv3", sigma=0.02)
    with monkeypatch.context() as patch:
        patch.setitem(presets.PRESETS, "paper", changed)
        with pytest.raises(InputError, match="another table than preset 'paper' now has; use the"):
            folder.read_config(tmp_path)
        folder.write_json(tmp_path / folder.CONFIG, asdict(config("paper")))
        folder.read_config(tmp_path)
    with pytest.raises(InputError, match="another table"):
        folder.read_config(tmp_path)
    older = {name: value for name, value in asdict(config("paper")).items() if name != "table"}
    folder.write_json(tmp_path / folder.CONFIG, older)
    assert folder.read_config(tmp_path) == config("paper")
