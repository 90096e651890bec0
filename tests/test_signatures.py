"""What `help`, an editor and a type checker show of a public function is what it takes: every option by its name and type."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import jaxviz


def public_modules() -> list[ModuleType]:
    """Return the packages and modules of jaxviz of whose path no part begins with an underscore."""
    names = [module.name for module in pkgutil.walk_packages(jaxviz.__path__, "jaxviz.")]
    return [importlib.import_module(name) for name in names if "._" not in name and not name.endswith("__")]


def public_functions(module: ModuleType) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield functions and methods of the classes of a module, `room.function` or `room.Class.method`."""
    for name, value in vars(module).items():
        if name.startswith("_") or not getattr(value, "__module__", "").startswith("jaxviz"):
            continue
        prefix = f"{module.__name__.removeprefix('jaxviz.')}.{name}"
        if inspect.isfunction(value):
            yield prefix, value
        elif inspect.isclass(value):
            for method, function in vars(value).items():
                if inspect.isfunction(function) and not method.startswith("_"):
                    yield f"{prefix}.{method}", function


def test_public_functions_name_their_options() -> None:
    """`**options` only as `Unpack` of a TypedDict."""
    functions = {name: function for module in public_modules() for name, function in public_functions(module)}
    assert len(functions) > 300
    unnamed = {
        name
        for name, function in functions.items()
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.VAR_KEYWORD and "Unpack" not in str(parameter.annotation)
    }
    assert not unnamed
