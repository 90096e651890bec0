"""The public names of jaxviz and their signatures, held against `public_api.txt`.

When a change is intended, write the file again and commit it: `python -m tests.test_public_api`.
"""

from __future__ import annotations

import difflib
import inspect
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jaxviz

PRIVATE = {"cli", "engine", "result"}  # a program, and modules that others only import from
SNAPSHOT = Path(__file__).with_name("public_api.txt")
COMMAND = "python -m tests.test_public_api"


def public_names(thing: Any) -> list[str]:
    return sorted(name for name in vars(thing) if not name.startswith("_"))


def rooms() -> Iterator[types.ModuleType]:
    """Yield jaxviz and its public modules."""
    yield jaxviz
    for name in public_names(jaxviz):
        if isinstance(value := getattr(jaxviz, name), types.ModuleType) and name not in PRIVATE:
            yield value


def signature(value: Any) -> str:
    """Return the signature without quotes and addresses, which differ between versions of Python and calls."""
    text = str(inspect.signature(value))
    return re.sub(r"<(?:function )?([\w.]+)(?: object)? at 0x[0-9a-f]+>|['\"]|\btyping\.", lambda match: match[1] or "", text)


def has_signature(kind: type) -> bool:
    """Say whether a class of jaxviz has a constructor of its own."""
    own = [base for base in kind.__mro__ if base.__module__.startswith("jaxviz") and "__init__" in vars(base)]
    return bool(own) and not getattr(kind, "_is_protocol", False)


def describe(name: str, value: Any) -> Iterator[str]:
    """Yield a line for a name and, for a class of jaxviz, one for each public member."""
    if typing.is_typeddict(value):
        yield f"{name}: options {', '.join(value.__annotations__)}"
    elif inspect.isclass(value):
        yield f"{name}: class{signature(value) if has_signature(value) else ''}"
        members: dict[str, Any] = {}
        for base in reversed(value.__mro__):
            if base.__module__.startswith("jaxviz"):
                members |= {member: vars(base)[member] for member in public_names(base)}
        for member in sorted(members):
            yield from describe_member(f"{name}.{member}", members[member])
    elif callable(value) and inspect.isroutine(value):
        yield f"{name}{signature(value)}"
    else:
        yield f"{name}: {'module' if isinstance(value, types.ModuleType) else type(value).__name__}"


def describe_member(name: str, member: Any) -> Iterator[str]:
    if isinstance(member, property):
        yield f"{name}: property"
    elif isinstance(member, classmethod | staticmethod):
        yield f"{name}{signature(member.__func__)}"
    elif inspect.isfunction(member):
        yield f"{name}{signature(member)}"


def is_own(room: types.ModuleType, name: str) -> bool:
    """Say whether a room defines a name for people: not `annotations`, no module, nothing that jaxviz lists already."""
    value = getattr(room, name)
    if type(value).__module__ == "__future__" or isinstance(value, types.ModuleType):
        return False
    if not hasattr(room, "__path__"):  # a file, whose imports are not for people
        return getattr(value, "__module__", room.__name__) == room.__name__
    return room is jaxviz or getattr(jaxviz, name, None) is not value


def public_api() -> str:
    lines: list[str] = []
    for room in rooms():
        lines.append(f"# {room.__name__}")
        for name in public_names(room):
            if is_own(room, name):
                lines += describe(name, getattr(room, name))
        lines.append("")
    return "\n".join(lines)


def test_public_names_and_signatures_are_those_of_the_snapshot():
    before, now = SNAPSHOT.read_text(encoding="utf-8").splitlines(), public_api().splitlines()
    changes = "\n".join(difflib.unified_diff(before, now, "public_api.txt", "jaxviz", lineterm="", n=0))
    assert not changes, (
        f"The public names or signatures have changed. If that is intended, run `{COMMAND}` and commit.\n{changes}"
    )


if __name__ == "__main__":
    SNAPSHOT.write_text(public_api(), encoding="utf-8")
    print(f"Wrote {SNAPSHOT}")
