"""A convolution of wide stride over few channels is one of stride 1 over blocks of pixels."""

import pytest
import torch
import torch.nn.functional as F

from alexnet import AlexNet, presets
from alexnet.convolutions import blocked_weight, in_blocks, space_to_depth
from alexnet.errors import InputError


@pytest.mark.parametrize(("preset", "size"), [("paper", 64), ("paper", 65), ("caffe", 67)])
def test_blocks_give_the_same_sums_and_gradients(preset, size):
    shape = presets.shapes(presets.get(preset), image_size=size)[0]
    block, side = in_blocks(shape, torch.bfloat16)
    assert (block, side) == (4, 4 * (shape.size + 2))
    x = torch.randn(2, 3, size, size, dtype=torch.float64)
    weight = torch.randn(5, 3, 11, 11, dtype=torch.float64, requires_grad=True)
    sums = F.conv2d(F.pad(x, (0, shape.pad[1], 0, shape.pad[1])), weight, stride=4)
    given = space_to_depth(x, block, side), blocked_weight(weight, block)
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in given)
    own, dy = F.conv2d(*given), torch.randn_like(sums)
    torch.testing.assert_close(own, sums, rtol=1e-12, atol=1e-12)
    (dw,), (expected,) = (torch.autograd.grad(y, weight, dy) for y in (own, sums))
    torch.testing.assert_close(dw, expected, rtol=1e-12, atol=1e-12)


def test_only_wide_strides_in_bfloat16_take_blocks():
    (paper, other), (cifar, *_) = (
        presets.shapes(presets.get("paper"))[:2],
        presets.shapes(presets.get("four-layer"), image_size=32),
    )
    assert in_blocks(paper, torch.bfloat16) == (4, 228)
    assert in_blocks(paper, torch.float32) is in_blocks(other, torch.bfloat16) is None
    assert in_blocks(cifar, torch.bfloat16) is None


def test_a_net_takes_images_in_blocks():
    net, images = AlexNet("paper", 4, 1 / 8, 64).bfloat16().eval(), torch.randn(2, 3, 64, 64) * 50
    images = images.bfloat16()
    blocks = space_to_depth(images, *in_blocks(net.table[0], torch.bfloat16))
    assert torch.equal(net(blocks), net(images))
    with pytest.raises(InputError, match="the net's input is"):
        net.float()(blocks.float())
