"""A subset of Python's expressions for the command line: calls of known functions, numbers, strings, lists, sums.

They are read with `ast` and never evaluated by Python: only functions of a table can be called.
"""

from __future__ import annotations

import ast
import inspect
import operator
from collections.abc import Callable, Mapping
from typing import Any

from jaxviz._errors import ArgumentError, near_matches

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_EXAMPLE = "such as name, name(1, key=2.5) or name(1) - 0.5 * name([2, 3])"


def evaluate(text: str, names: Mapping[str, Callable[..., Any]]) -> Any:
    """Return the value of an expression such as `channel("layer3", [7, 9]) - 0.5 * diversity("layer3")`.

    A bare name is called without arguments; commas outside of brackets make a tuple.

    Args:
        text: the expression.
        names: the functions that may be called.

    Raises:
        ArgumentError: anything but calls of these, literals and + - * /; or wrong arguments, with the function's signature.

    >>> evaluate("double(3) * -2.5", {"double": lambda x: 2 * x})
    -15.0
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ArgumentError(f"Expected an expression {_EXAMPLE}; got {text!r}.") from None
    return _value(tree.body, text, names)


def _value(node: ast.expr, text: str, names: Mapping[str, Callable[..., Any]]) -> Any:
    match node:
        case ast.Constant(value=value) if value is None or isinstance(value, bool | int | float | str):
            return value
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            values = [_value(part, text, names) for part in parts]
            return values if isinstance(node, ast.List) else tuple(values)
        case ast.Dict(keys=keys, values=parts) if all(isinstance(key, ast.Constant) for key in keys):
            return {ast.literal_eval(key): _value(part, text, names) for key, part in zip(keys, parts, strict=True) if key}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _apply(operator.neg, text, _value(operand, text, names))
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _BINARY:
            return _apply(_BINARY[type(op)], text, _value(left, text, names), _value(right, text, names))
        case ast.Name(id=name):
            return _call(name, (), {}, text, names)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if all(k.arg for k in keywords):
            named = {str(k.arg): _value(k.value, text, names) for k in keywords}
            return _call(name, [_value(arg, text, names) for arg in args], named, text, names)
        case _:
            raise ArgumentError(f"Cannot read {ast.unparse(node)!r} in {text!r}: expected an expression {_EXAMPLE}.")


def _call(name: str, args: Any, keywords: dict[str, Any], text: str, names: Mapping[str, Callable[..., Any]]) -> Any:
    if name not in names:
        known = near_matches(name, names) or f" Known: {', '.join(names)}."
        raise ArgumentError(f"There is no {name!r}, in {text!r}.{known}")
    function = names[name]
    signature = inspect.signature(function)
    try:
        signature.bind(*args, **keywords)
    except TypeError as error:
        parameters = ", ".join(str(p.replace(annotation=inspect.Parameter.empty)) for p in signature.parameters.values())
        raise ArgumentError(f"{error}, in {text!r}: write {name}({parameters}).") from None
    return _apply(function, text, *args, **keywords)


def _apply(function: Callable[..., Any], text: str, *args: Any, **keywords: Any) -> Any:
    try:
        return function(*args, **keywords)
    except ArgumentError:
        raise
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ArgumentError(f"{error}, in {text!r}.") from error
