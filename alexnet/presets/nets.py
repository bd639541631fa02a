"""The nets: the text's, the released source's net 145, Caffe's, and Figure 1's.

Sources: the text; layers-145.cfg and layer-params-145*.cfg of the released source for `SOURCE`;
models/bvlc_alexnet of Caffe for `CAFFE`.
"""

from dataclasses import replace

from alexnet.presets.layers import Layer, Preset, Recipe
from alexnet.presets.operations import DROPOUT, LRN, POOL, RELU, Dropout, Pool, SameMapNorm

SOURCE_LRN = LRN(alpha=2e-5)  # the source divides 1e-4 by the window's 5
CAFFE_LRN, CAFFE_POOL = LRN(alpha=2e-5, k=1, merged=True), Pool(ceil=True)
CAFFE_DROPOUT = Dropout(inverted=True)

# fmt: off
PAPER = Preset(
    "paper",
    layers=(
        Layer("conv1", 48, "image", kernel=11, stride=4, pad=None, then=(RELU, LRN(), POOL)),
        Layer("conv2", 128, "own", kernel=5, pad=2, bias=1, then=(RELU, LRN(), POOL)),
        Layer("conv3", 192, "both", kernel=3, pad=1, then=(RELU,)),
        Layer("conv4", 192, "own", kernel=3, pad=1, bias=1, then=(RELU,)),
        Layer("conv5", 128, "own", kernel=3, pad=1, bias=1, then=(RELU, POOL)),
        Layer("fc6", 2048, "both", bias=1, then=(RELU, DROPOUT)),
        Layer("fc7", 2048, "both", bias=1, then=(RELU, DROPOUT)),
        Layer("fc8", 0, "own"),  # the columns' partial logits are summed
    ),
)

SOURCE = Preset(
    "source",
    layers=(
        Layer("conv1", 48, "image", kernel=11, stride=4, pad=None, then=(SOURCE_LRN, POOL, RELU)),
        Layer("conv2", 128, "own", kernel=5, pad=2, bias=1,
              then=(RELU, SOURCE_LRN, SameMapNorm(), POOL)),
        Layer("conv3", 192, "both", kernel=3, pad=1, sigma=0.03, then=(RELU,)),
        Layer("conv4", 192, "own", kernel=3, pad=1, sigma=0.03, bias=1, then=(RELU,)),
        Layer("conv5", 128, "own", kernel=3, pad=1, sigma=0.03, bias=1, then=(POOL, RELU)),
        *PAPER.layers[5:],
    ),
    recipe=Recipe(
        bias_rate=0.02, schedule="logged", cycles=93.0, falls=(23, 51, 78), bias_falls=(23,),
        conv1_fall=68, conv1_freeze=72,  # layer-params-145-2010.cfg:170-176
        color="source", color_off=68, crop_chunk=32, mean="center",
    ),
)

# On one device: two groups of maps in conv2, conv4 and conv5 are what is left of the columns. At
# 227 pixels no pooling window reaches over the border.
CAFFE = Preset(
    "caffe",
    layers=(
        Layer("conv1", 48, "image", kernel=11, stride=4, then=(RELU, CAFFE_LRN, CAFFE_POOL)),
        Layer("conv2", 128, "own", kernel=5, pad=2, bias=0.1, then=(RELU, CAFFE_LRN, CAFFE_POOL)),
        Layer("conv3", 192, "both", kernel=3, pad=1, then=(RELU,)),
        Layer("conv4", 192, "own", kernel=3, pad=1, bias=0.1, then=(RELU,)),
        Layer("conv5", 128, "own", kernel=3, pad=1, bias=0.1, then=(RELU, CAFFE_POOL)),
        Layer("fc6", 2048, "both", sigma=0.005, bias=0.1, then=(RELU, CAFFE_DROPOUT)),
        Layer("fc7", 2048, "both", sigma=0.005, bias=0.1, then=(RELU, CAFFE_DROPOUT)),
        Layer("fc8", 0, "own"),
    ),
    recipe=Recipe(  # 450,000 steps, about 90 epochs; the rate falls after each 100,000
        batch_size=256, bias_rate=0.02, schedule="logged", cycles=90.0,
        falls=(20, 40, 60, 80), bias_falls=(20, 40, 60, 80), color=None,
    ),
    reference_size=227,
)

# The paper gives neither sizes nor rates of this net: widths are those of the small CIFAR-10 nets
# of the time, order and overlap the paper's.
FOUR_LAYER = Preset(
    "four-layer",
    layers=(
        Layer("conv1", 32, "image", kernel=5, pad=2, sigma=0.0001, then=(RELU, POOL)),
        Layer("conv2", 32, "own", kernel=5, pad=2, then=(RELU, POOL)),
        Layer("conv3", 64, "own", kernel=5, pad=2, then=(RELU, POOL)),
        Layer("fc4", 0, "own", sigma=0.1),
    ),
    recipe=Recipe(weight_decay=0.0, schedule="constant", color=None, crops="center", flips=False),
    columns=1,
    reference_size=32,
)
# The two CIFAR-10 nets of cuda-convnet's page, which the paper's footnote 3 names. The files differ
# in more than normalization: in the width of local3, in fc10's decay, and threefold in length.
# Sources: layers-conv-local-{13,11}pct.cfg and their layer-params; normalization of size 9, its
# scale divided by the size, as the released source does.
CIFAR_POOL, CIFAR_LRN = Pool(ceil=True), LRN(size=9, alpha=0.001 / 9, k=1)
CIFAR_13 = Preset(
    "cifar-13pct",
    layers=(
        Layer("conv1", 64, "image", kernel=5, pad=2, sigma=0.0001, decay=0.0,
              then=(RELU, CIFAR_POOL)),
        Layer("conv2", 64, "own", kernel=5, pad=2, decay=0.0, then=(RELU, CIFAR_POOL)),
        Layer("local3", 32, "own", kernel=3, pad=1, sigma=0.04, local=True, then=(RELU,)),
        Layer("local4", 32, "own", kernel=3, pad=1, sigma=0.04, local=True, then=(RELU,)),
        Layer("fc10", 0, "own"),
    ),
    recipe=Recipe(
        weight_decay=0.004, rate=0.001, bias_rate=0.002, schedule="logged", cycles=160.0,
        falls=(140, 150), bias_falls=(140, 150), color=None,
    ),
    columns=1,
    reference_size=24,
)
CIFAR_11 = Preset(
    "cifar-11pct",
    layers=(
        replace(CIFAR_13.layer("conv1"), then=(RELU, CIFAR_POOL, CIFAR_LRN)),
        replace(CIFAR_13.layer("conv2"), then=(RELU, CIFAR_LRN, CIFAR_POOL)),
        replace(CIFAR_13.layer("local3"), maps=64),
        CIFAR_13.layer("local4"),
        replace(CIFAR_13.layer("fc10"), decay=0.01),
    ),
    recipe=replace(CIFAR_13.recipe, cycles=520.0, falls=(500, 510), bias_falls=(500, 510)),
    columns=1,
    reference_size=24,
)
# fmt: on

PRESETS = {preset.name: preset for preset in (PAPER, SOURCE, CAFFE, FOUR_LAYER, CIFAR_13, CIFAR_11)}
