"""Files as disks, networks and enemies leave them."""

from __future__ import annotations

import random
from collections.abc import Sequence


def damage(content: bytes, rng: random.Random, fragments: Sequence[bytes]) -> bytes:
    """Return the file with one to three damages of random kinds; `fragments` are put in."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        if not data:
            break
        start = rng.randrange(len(data))
        if rng.random() < 0.5:  # half of all damage where the structure is: at the two ends
            start = min(rng.randrange(600), len(data) - 1) if rng.random() < 0.6 else max(0, len(data) - 1 - rng.randrange(600))
        length = min(rng.choice([1, 1, 2, 4, 8, 16, 64, 512]), len(data) - start)
        other = rng.randrange(len(data))
        kind = rng.randrange(9)
        if kind == 0:
            data[start] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[start : start + length] = rng.randbytes(length)
        elif kind == 2:
            del data[start:]
        elif kind == 3:
            del data[start : start + length]
        elif kind == 4:
            data[start:start] = data[other : other + length]
        elif kind == 5:
            data[start : start + length] = bytes(length)
        elif kind == 6:
            data[start : start + length] = b"\xff" * length
        elif kind == 7:
            data[start:start] = rng.choice(fragments)
        else:
            data[start : start + length] = data[other : other + length]
    return bytes(data)
