"""Keys: what decides whether something that is kept can be used again.

A key is a digest of every setting that decides the content, as JSON with sorted names. A file's own
digest, `alexnet.files.file_digest`, says whether it is still what it was. This is all that is kept:

    what                  where                                     by what key
    --------------------  ----------------------------------------  ------------------------------
    pack                  the folder named; a profile's own data:   digest of shards and labels;
                          runs/P/data/NAME-KEY/                     settings and generator
    pack, half made       .NAME.partial beside it                   source and options
    trained net           runs/P/models/KEY/                        `Config.identity`: settings,
                                                                    data, version of the code, the
                                                                    preset's table if that is new
    checkpoint            RUN/checkpoints/step-N/                   the net's; each file's SHA-256
    result of one arm     EXPERIMENT/ARM-SEED.json in               the nets', digests of data,
    and seed              runs/P/results/ and in the archive,       settings, version of the
                          results/P/                                measurement
    Table 1's older rows  runs/P/baselines/ROW-KEY/                 settings, data
    executed notebook     runs/P/notebooks/                         its cells, parameters; the
                                                                    package's code; results
    page of the book      _build/.jupyter_cache, .doctrees          code, results, versions: in
                                                                    .code_hash and .pages_hash
    operators in C        ~/.cache/alexnet-kernels/                 source, flags, compiler,
                          native-KEY-DIGEST.so                      processor; digest of itself
    fastest GPU form      ~/.cache/alexnet-kernels/choices.json     GPU, versions, shapes
    Triton's binaries     ~/.triton/cache                           Triton's own

P is a profile. ALEXNET_RUNS moves runs/, ALEXNET_CACHE ~/.cache/alexnet-kernels, TRITON_CACHE_DIR
~/.triton/cache. All but results/ may be deleted at any time: it is made anew when it is needed.
"""

import json
from hashlib import sha256
from typing import Any


def key(value: Any) -> str:
    """The key of a JSON value: 16 hexadecimal digits of its SHA-256. Other types count by `str`."""
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
