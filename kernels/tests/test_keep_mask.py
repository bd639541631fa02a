"""The masks of dropout, to the bit on every device."""

import pytest
import torch
from references import FORMS, form

import alexnet_kernels as kernels


def splitmix64(key: int, i: int) -> int:
    """The i-th number of a key, in Python's integers."""
    state = (key + (i + 1) * 0x9E3779B97F4A7C15) % 2**64
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    state = (state ^ state >> 27) * 0x94D049BB133111EB % 2**64
    state ^= state >> 31
    return state - 2**64 if state >= 2**63 else state


def test_the_definition_is_splitmix64s():
    assert splitmix64(0, 0) % 2**64 == 0xE220A8397B1DCDAF  # its first output from state 0


@pytest.mark.parametrize("in_form", FORMS)
@pytest.mark.parametrize("threshold", [-(2**63), -(2**62), 0, 2**61, 2**63 - 1])
def test_to_the_bit(in_form, threshold):
    keys = torch.tensor([[-(2**63), -3, -1], [0, 7, 2**63 - 1]])
    numbers = [splitmix64(key, i) for key in keys.flatten().tolist() for i in range(5)]
    expected = torch.tensor([number < threshold for number in numbers])
    with form(in_form) as device:
        mask = kernels.keep_mask(keys.to(device), 5, threshold).cpu()
        steps = kernels.keep_mask(keys.to(device)[:, ::2], 5, threshold).cpu()
        assert torch.equal(mask, expected.view(2, 3, 5)) and torch.equal(steps, mask[:, ::2])
        assert torch.equal(kernels.keep_mask(keys[0, 1].to(device), 5, threshold).cpu(), mask[0, 1])
        assert kernels.keep_mask(keys[:0].to(device), 5, threshold).shape == (0, 3, 5)
        assert kernels.keep_mask(keys.to(device), 0, threshold).shape == (2, 3, 0)


@pytest.mark.parametrize("in_form", FORMS)
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.bfloat16], ids=str)
def test_of_any_type_and_hashed_with_what_they_are_for(in_form, dtype):
    keys, parts = torch.tensor([-(2**63), -3, 0, 2**63 - 1]), (0, 6, 1)
    hashed = []
    for key in keys.tolist():
        for part in parts:
            key = splitmix64(key ^ part, 0)
        hashed.append(key)
    with form(in_form) as device:
        expected = kernels.keep_mask(torch.tensor(hashed).to(device), 300, 0)
        mask = kernels.keep_mask(keys.to(device), 300, 0, parts, dtype)
        assert mask.dtype == dtype and torch.equal(mask, expected.to(dtype))


def test_half_are_kept_at_zero():
    assert abs(kernels.keep_mask(torch.arange(20_000), 4, 0).double().mean() - 0.5) < 0.01


def test_under_torch_compile_it_is_torchs_operators():
    """So that it is fused with what multiplies by it."""
    compiled = torch.compile(kernels.keep_mask, fullgraph=True, backend="eager")
    keys = torch.arange(4)
    assert torch.equal(compiled(keys, 9, 2**60), kernels.keep_mask(keys, 9, 2**60))


def test_keys_of_another_type_are_named():
    with pytest.raises(ValueError, match="int64"):
        kernels.keep_mask(torch.arange(3).int(), 2, 0)
