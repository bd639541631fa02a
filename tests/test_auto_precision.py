"""`precision: auto`: which precision a machine trains a net in."""

import json

import pytest
import torch
import torch.nn.functional as F

from alexnet import cli
from alexnet.network import AlexNet
from alexnet.training import auto_precision, log
from alexnet.training.auto_precision import choose, speedup, wrong_layers

NET = ("paper/sigma-0.03", 10, 1 / 16, 64, 8)


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A processor that has AMX, and a cache of its own."""
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(auto_precision.machine, "instruction_sets", lambda: ["amx_bf16"])
    return monkeypatch


@pytest.mark.parametrize(("ratio", "expected"), [(3.0, "bf16"), (1.05, "fp32")])
def test_bf16_is_chosen_where_it_is_measured_to_be_faster(machine, ratio, expected):
    machine.setattr(auto_precision, "speedup", lambda net, batch: ratio)
    precision, why = choose(*NET)
    assert precision == expected and f"{ratio:.2f} times as fast" in why


def test_a_choice_is_kept_for_the_net_its_variants_and_the_threads(machine, tmp_path):
    measured = []
    machine.setattr(auto_precision, "speedup", lambda net, batch: measured.append(batch) or 2.0)
    first = choose(*NET, threads=1)
    assert choose(*NET, threads=1) == first == choose("paper/no-lrn", *NET[1:], threads=1)
    assert len(measured) == 1
    choose(*NET, threads=2)
    choose("source", *NET[1:], threads=1)
    assert len(measured) == 3
    (file,) = (tmp_path / "cache").glob("*.json")
    file.write_text("{damaged")
    assert choose(*NET, threads=1) == first and len(measured) == 4
    assert json.loads(file.read_text())


def test_without_instructions_for_it_nothing_is_measured(machine):
    machine.setattr(auto_precision.machine, "instruction_sets", lambda: ["avx2", "fma"])
    machine.setattr(auto_precision, "speedup", lambda net, batch: 9.0)
    precision, why = choose(*NET)
    assert precision == "fp32" and "neither amx_bf16 nor avx512_bf16" in why


def test_a_torch_that_computes_a_layer_wrong_falls_back_and_says_which(machine):
    """As some releases did: the convolutions of one stride."""
    right = F.conv2d

    def wrong(x, weight, *rest):
        y = right(x, weight, *rest)
        return y * 1.1 if x.dtype == torch.bfloat16 and weight.shape[-1] == 5 else y

    machine.setattr(auto_precision, "speedup", lambda net, batch: 9.0)
    assert wrong_layers(AlexNet(*NET[:4])) == []
    assert choose(*NET, threads=1).precision == "bf16"
    machine.setattr(F, "conv2d", wrong)
    precision, why = choose("source", *NET[1:])
    assert precision == "fp32" and "computes conv2 wrong in bf16" in why


def test_the_state_of_torch_is_left_as_it_was():
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    ratio = speedup(AlexNet(*NET[:4]), 4)
    torch.set_rng_state(state)
    choose(*NET, threads=1)
    assert ratio > 0 and torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_a_run_says_what_was_chosen_and_goes_on_in_it(machine, packs72, tmp_path, capsys):
    from alexnet.training.folder import read_config

    machine.setattr(auto_precision, "speedup", lambda net, batch: 2.0)
    run = tmp_path / "run"
    command = ["train", "--data", packs72, "--out", run, "--precision", "auto"]
    command += ["--preset", "paper/constant-rate", "--width", "0.0625", "--batch-size", "8"]
    assert cli.main([*map(str, command), "--steps", "2"]) == 0
    assert "precision auto: bf16: a step in bf16 was measured" in capsys.readouterr().err
    assert read_config(run).precision == "bf16" and len(log.losses(run)) == 2
    machine.setattr(auto_precision, "choose", lambda *net: 1 / 0)  # is not asked again
    assert cli.main([*map(str, command), "--steps", "2", "--resume"]) == 0


def test_the_precision_of_a_profile_is_that_of_its_own_net(machine):
    from alexnet.experiments import jobs
    from alexnet.profiles import Profile

    asked = []

    def answer(preset, *net, threads):
        asked.append((preset, net[1:3]))
        return auto_precision.Choice("bf16", "so it is")

    machine.setattr(auto_precision, "choose", answer)
    machine.setattr(Profile, "splits", lambda self, part=None: PACKS)
    settings = {"width": 0.25, "image_size": 64, "base": "paper/x", "precision": "auto"}
    profile = Profile("own", settings)
    ours = jobs.configure(profile, "source", epochs=1.0)
    other = jobs.configure(profile, "four-layer", epochs=1.0, image_size=28)
    assert ours.precision == other.precision == "bf16"
    assert asked == [("paper/x", (0.25, 64)), ("four-layer", (0.25, 28))]


class _Pack:
    classes, digest = ["a", "b"], "0" * 64


PACKS = {"train": _Pack()}
