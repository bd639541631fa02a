"""The data's way, timed: preparing packs, and feeding from them, beside what people use.

    python -m benchmarks.data                       # prepare, gather, feed, on photographs that the
                                                    # dependencies ship: some minutes
    python -m benchmarks.data tiny --images DIR     # all of Tiny ImageNet, in DIR: prepared,
                                                    # verified, loaded
    python -m benchmarks.data memory --images DIR   # peak memory at 10,000 and at 1,000,000 images,
                                                    # links to those in DIR; 13 GB of disk
    python -m benchmarks.data gpu                   # augmentation, streaming, and both; on a CPU it
                                                    # only shows that it runs

Rows go to benchmarks/results/data.csv. Images are compared before anything is timed.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

from alexnet.errors import InputError
from alexnet.processes import cores
from benchmarks import ARCHIVE, ROOT
from benchmarks.feeding import feeding, gpu
from benchmarks.preparing import memory, preparing, tiny
from kernel_benchmarks import record, report, runner, script
from kernel_benchmarks.record import Row

COLUMNS = (
    *(*record.ORIGIN, "pillow", "case", "implementation", "images", "size", "workers", "runs"),
    *("images_per_s", "p20", "p80", "against", "ratio", "wanted", "value", "unit", "note"),
)
FILE = ARCHIVE / "data.csv"
SOURCES = (ROOT / "alexnet" / "data", ROOT / "benchmarks")
KINDS = {"prepare": preparing, "feed": feeding, "tiny": tiny, "memory": memory, "gpu": gpu}
NEED_IMAGES = {"tiny": "Tiny ImageNet's folder", "memory": "a folder of images of 64 x 64 pixels"}


def table(rows: Sequence[Row]) -> str:
    heads = ("images", "size", "images/s", "times", "wanted", "value", "unit ")
    lines = [["case ", "implementation ", *heads]]
    forms = {"images_per_s": ",.0f", "ratio": ",.3g", "wanted": ",.3g", "value": ",.4g"}
    for row in rows:
        texts = [str(row[name] or "") for name in ("case", "implementation", "images", "size")]
        numbers = [format(row[name], form) if row[name] else "" for name, form in forms.items()]
        lines.append([*texts, *numbers, str(row["unit"] or "")])
    notes = [
        f"{row['case']}, {row['implementation']}: {row['note']}" for row in rows if row["note"]
    ]
    return "\n".join([report.where(rows[0]), "", report.table(lines), *notes])


def measured(kind: str, args: argparse.Namespace) -> list[Row]:
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        return KINDS[kind](Path(folder), args)


def main(argv: Sequence[str] | None = None) -> int:
    form = script.parser("benchmarks.data", __doc__, FILE)
    add = form.add_argument
    add("what", nargs="*", help=f"{', '.join(KINDS)} (default: prepare feed)")
    add("--images", type=Path, metavar="DIR", help="images for tiny and memory")
    shown = "(default: %(default)s)"
    add("--count", type=script.positive, default=4000, help=f"photographs {shown}")
    counts = [10_000, 1_000_000]
    add("--counts", type=script.positive, nargs="+", default=counts, help="images for memory")
    add("--size", type=script.positive, default=256, help=f"of the packs' images {shown}")
    workers = f"of torch's DataLoader, to try {shown}"
    add("--most-workers", type=int, default=2 * cores(), help=workers)
    add("--runs", type=script.positive, default=3, help=f"rounds that are kept {shown}")
    add("--batch-size", type=script.positive, default=128, help=f"for gpu {shown}")
    place = "folder for the images and packs (default: the system's for temporary files)"
    add("--work", type=Path, help=place)
    args = form.parse_args(argv)

    def work() -> int:
        script.settle(args)
        kinds = script.chosen(args.what, KINDS, ["prepare", "feed"])
        for kind in kinds:
            if kind in NEED_IMAGES and args.images is None:
                raise InputError(f"name {NEED_IMAGES[kind]} by --images")
        device = args.device if "gpu" in kinds else "cpu"
        origin = record.machine(device, args.commit, SOURCES)
        # one time for all that is measured now
        origin |= {"pillow": version("pillow"), "time": record.now()}
        tasks = [runner.Task(kind, {}, partial(measured, kind, args), args.out) for kind in kinds]
        rows, left = runner.run(tasks, COLUMNS, origin, args)
        print(table(rows) if rows else "Nothing was measured.")
        return 1 if left else 0

    return script.guarded(work, InputError)


if __name__ == "__main__":
    sys.exit(main())
