"""A net's input: made of photographs, and warned of where it cannot be meant."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet import AlexNet, inputs
from alexnet.data.decode import fit
from alexnet.errors import InputError
from tests.images import photograph


@pytest.mark.parametrize(
    ("preset", "change", "said"),
    [
        ("paper", lambda x: x / 255, "as normalized pixels do"),
        ("paper", lambda x: x.clamp(0, 255) + 60, "from which no mean is taken"),
        ("paper", lambda x: x, None),
        ("paper", torch.zeros_like, None),
        ("paper/unit-input", lambda x: x / 255, None),
        ("paper/unit-variance", lambda x: x / 58, None),
    ],
)
def test_an_input_of_another_range_is_warned_of_once(preset, change, said):
    net = AlexNet(preset, 3, 1 / 16, 64).eval()
    images = change(58 * torch.randn(4, 3, 64, 64))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net(images)
        net(images)
    assert [w.filename for w in caught] == [__file__] * (said is not None)
    assert all(said in str(w.message) and "0..255 minus the mean" in str(w.message) for w in caught)


def test_preprocess_makes_the_input_of_photographs():
    net, image = AlexNet("paper", 3, 1 / 16, 64), photograph(160, 80)
    with pytest.raises(InputError, match=r"mean image is unknown: give mean"):
        net.preprocess(image)
    gray = net.preprocess(image, mean=(10, 20, 30))
    small = fit(image, 73)  # 8/7 of the crop
    expected = np.asarray(small, np.float32)[4:68, 4:68] - np.float32([10, 20, 30])
    assert np.array_equal(gray[0], expected.transpose(2, 0, 1))
    net.mean_image = np.zeros((72, 72, 3), np.float32)
    net = net.to(torch.bfloat16)
    both = net.preprocess([image, np.asarray(image)])
    assert both.shape == (2, 3, 64, 64) and both.dtype == torch.bfloat16
    assert torch.equal(both[0], both[1]) and float(both.min()) >= 0
    with pytest.raises(InputError, match=r"shape \(S, S, 3\)"):
        net.preprocess(image, mean=np.zeros((3, 4)))


def test_photographs_that_cannot_be_scaled_are_named(tmp_path):
    Image.new("RGB", (1, 4000)).save(tmp_path / "narrow.png")
    with pytest.raises(InputError, match=r"narrow.png: 1x4000 is too narrow"):
        inputs.pixels(tmp_path / "narrow.png", 256)
    with pytest.raises(InputError, match="there are no photographs"):
        inputs.pixels([], 64)
    assert inputs.pixels([photograph(30, 40)] * 2, 16).shape == (2, 16, 16, 3)


def test_inputs_that_cannot_be_looked_at_are_let_pass():
    """Stand-ins of tracers and of torch.func have no numbers."""
    net, images = AlexNet("paper/no-dropout", 3, 1 / 16, 64).eval(), torch.rand(2, 3, 64, 64)
    assert not inputs.is_plain(torch.empty(1, device="meta"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        torch.func.jvp(net, (images,), (images,))
        torch.export.export(net, (images,))
