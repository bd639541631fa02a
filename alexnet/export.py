"""A trained net for other programs: weights as safetensors in the layout of one device, or the
whole net as ONNX."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch
from safetensors.torch import load_file, save_file

from alexnet.errors import InputError, needs, require
from alexnet.files import write_whole
from alexnet.network import AlexNet

INPUT = "float32 (N, 3, S, S), RGB in 0..255 minus the mean image"
TOLERANCE = 1e-4  # of the file's logits, as a share of the largest


def write(net: AlexNet, file: str | Path, about: dict[str, str]) -> None:
    """Write a net to a file, whole or not at all, and check the file by reading and running it.

    Args:
        net: Is in evaluation mode afterwards.
        file: .safetensors: what `AlexNet.export_merged` gives and `load_merged` takes back.
            .onnx: input "images", as the net takes them, output "logits", any number of images.
        about: Kept as metadata; `Card.metadata` has all that a net needs to be used again.

    Raises:
        InputError: Another ending, a place that cannot be written, or ONNX without the packages of
            the extra `export`.
        RuntimeError: The file does not compute what the net does.
    """
    file = Path(file)
    writers = {".safetensors": _safetensors, ".onnx": _onnx}
    require(file.suffix in writers, f"{file} should end in {' or '.join(writers)}")
    check_place(file)
    write_as = partial(writers[file.suffix], net.eval(), about | {"input": INPUT})
    with torch.no_grad():
        write_whole(file, write_as)


def check_place(file: Path) -> None:
    """Raise InputError where a file cannot be written, before anything is computed for it."""
    require(not file.is_dir(), f"{file} is a folder; name a file")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}; choose another place") from None


def _safetensors(net: AlexNet, about: dict[str, str], part: Path) -> None:
    save_file(net.export_merged(), part, metadata=about)
    again = AlexNet(net.preset, net.table[-1].maps, net.width, net.table[0].in_size).eval()
    again.load_merged(load_file(part))
    images = _images(net, 2)
    _check(again(images), net(images))


def _onnx(net: AlexNet, about: dict[str, str], part: Path) -> None:
    runtime = needs("onnxruntime", extra="export", what="ONNX")
    needs("onnxscript", extra="export", what="ONNX")  # torch's exporter says so less clearly
    inputs, size = (_images(net, 2),), {0: torch.export.Dim("N")}
    with _quiet():
        program = torch.onnx.export(
            net,
            inputs,
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=(size,),
            verbose=False,
        )
        assert program is not None
        program.model.metadata_props.update(about)
        program.save(part)
    session = runtime.InferenceSession(part.read_bytes(), providers=["CPUExecutionProvider"])
    for count in (1, 3):
        images = _images(net, count)
        (logits,) = session.run(None, {"images": images.numpy()})
        _check(torch.from_numpy(logits), net(images))


def _images(net: AlexNet, count: int) -> torch.Tensor:
    side = net.table[0].in_size
    return 60 * torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(count))


def _check(logits: torch.Tensor, expected: torch.Tensor) -> None:
    off = float((logits - expected).abs().max() / expected.abs().max())
    if not off <= TOLERANCE:
        raise RuntimeError(
            f"the exported file computes other logits than the net, by {off:.1e} of the largest; "
            "nothing was written"
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's exporter, which prints its progress and its doubts in several ways."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(action="ignore"):
        try:
            yield
        finally:
            logging.disable(before)
