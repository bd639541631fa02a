"""What one writes in ten lines, for comparison: every image opened, converted, scaled, cropped, and
written into one array on the disk.

    python -m benchmarks.pillow_loop SOURCE OUT.npy SIZE
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from alexnet.data.decode import fit, to_rgb


def main(source: str, out: str, size: int) -> None:
    files = sorted(Path(source).glob("*/*"))
    array = np.lib.format.open_memmap(out, "w+", np.uint8, (len(files), size, size, 3))
    for i, path in enumerate(files):
        with Image.open(path) as image:
            array[i] = np.asarray(fit(to_rgb(image), size))
    array.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
