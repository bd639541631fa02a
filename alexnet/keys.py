"""Keys: what decides whether something that is kept can be used again.

A key is a digest of every setting that decides the content, as JSON with sorted names.
"""

import json
from hashlib import sha256
from typing import Any


def key(value: Any) -> str:
    """The key of a JSON value: 16 hexadecimal digits of its SHA-256. Other types count by `str`."""
    return sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
