"""The table of layers that a net prints."""

from typing import TYPE_CHECKING

from alexnet.presets.sizes import total
from alexnet.tables import align

if TYPE_CHECKING:
    from alexnet.network import AlexNet

SUMMARY = "layer reads kernel maps map pooled neurons parameters MACs columns device".split()
_TO_THE_LEFT = ("layer", "reads", "kernel", "columns", "device")


def summary(net: "AlexNet") -> str:
    """The table that `AlexNet.summary` prints."""
    devices = (str(stage.weight.device) for stage in net.stages(net.table[0].layer.name))
    places = " + ".join(map(str, net.numbers)), " + ".join(devices)
    counted = ("neurons", "parameters", "macs")
    rows = [SUMMARY]
    for row in net.table:
        layer, several = row.layer, not row.is_last and row.columns > 1
        kernel = f"{layer.kernel}x{layer.kernel}/{layer.stride}" if layer.kernel else "full"
        kernel += " local" * layer.local
        maps = f"{row.columns} x {row.maps}" if several else f"{row.maps}"
        side = f"{row.size}x{row.size}" if layer.kernel else ""
        pooled = f"{row.out_size}x{row.out_size}" if row.out_size != row.size else ""
        counts = (f"{getattr(row, what):,}" for what in counted)
        rows.append([layer.name, layer.reads, kernel, maps, side, pooled, *counts, *places])
    totals = (f"{total(net.table, what):,}" for what in counted)
    rows.append(["total", *[""] * 5, *totals, "", ""])
    head, *lines, last = align(rows, [name not in _TO_THE_LEFT for name in SUMMARY])
    rule = "-" * max(map(len, (head, *lines, last)))
    return "\n".join((head, rule, *lines, rule, last))
