"""What every parameterisation, transform, regulariser and objective must keep to: the checks that their tests share.

An object under test is a pytree; `call(object, *arrays)` uses it. `variants` are the same thing built anew with other
amounts: a program compiled for the first must serve all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

import jaxviz as jv
from tests.compilations import compilations

Call = Callable[..., Any]
PLATFORMS = ("cpu", "cuda", "tpu")


def assert_close(actual: Any, expected: Any, atol: float = 1e-5) -> None:
    """Two pytrees of arrays have one structure, the same dtypes and, within `atol`, the same values."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=atol, rtol=atol)


def check_pytree(thing: Any) -> None:
    """Its leaves are arrays of 32 bits and of no weak type, and it survives being taken apart and put together."""
    leaves, structure = jax.tree.flatten(thing)
    for leaf in leaves:
        assert isinstance(leaf, np.ndarray | jax.Array), f"{leaf!r} is a leaf and no array"
        assert leaf.dtype in (np.float32, np.int32) and not getattr(leaf, "weak_type", False)
    again = jax.tree.unflatten(structure, leaves)
    assert type(again) is type(thing)
    assert jax.tree.structure(again) == structure


def check_jit(call: Call, thing: Any, *args: Any, atol: float = 1e-5) -> None:
    """Compiled and not compiled, it gives the same, in float32."""
    eager = call(thing, *args)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(eager))
    assert_close(jax.jit(call)(thing, *args), eager, atol)


def check_vmap(call: Call, thing: Any, *batched: Any, atol: float = 1e-5) -> None:
    """Mapped over a leading axis of all arguments, it gives what a loop gives."""
    mapped = jax.jit(jax.vmap(call, in_axes=(None, *(0 for _ in batched))))(thing, *batched)
    one = jax.jit(call)
    loop = [one(thing, *(jax.tree.map(lambda b, i=i: b[i], arg) for arg in batched)) for i in range(_length(batched[0]))]
    assert_close(mapped, jax.tree.map(lambda *leaves: jnp.stack(leaves), *loop), atol)


def check_gradient(call: Call, thing: Any, *args: Any) -> None:
    """With respect to its last argument, the gradient of a weighted sum of what it returns is finite float32, and not all 0."""

    def total(thing: Any, *args: Any) -> jax.Array:
        out = jax.tree.leaves(call(thing, *args))
        return sum((jnp.sum(leaf * jnp.linspace(0.5, 1.5, leaf.size).reshape(leaf.shape)) for leaf in out), jnp.zeros(()))

    gradient = jax.jit(jax.grad(total, argnums=len(args)))(thing, *args)
    for g, a in zip(jax.tree.leaves(gradient), jax.tree.leaves(args[-1]), strict=True):
        assert g.shape == a.shape and g.dtype == jnp.float32
        assert np.isfinite(g).all() and np.any(g)


def check_traces(call: Call, variants: Sequence[Callable[[], Any]], *args: Any) -> None:
    """Built anew, twice and with other amounts, it is traced once in all."""
    traces = 0

    def counted(thing: Any, *args: Any) -> Any:
        nonlocal traces
        traces += 1
        return call(thing, *args)

    compiled = jax.jit(counted)
    for make in (*variants, *variants):
        jax.block_until_ready(compiled(make(), *args))
    assert traces == 1


def check_lowers(call: Call, thing: Any, *args: Any, gradient: bool = True) -> None:
    """Its program, with the gradient, can be made for every platform, whether or not that is here."""

    def with_gradient(thing: Any, *args: Any) -> Any:
        out, pull = jax.vjp(lambda last: call(thing, *args[:-1], last), args[-1])
        return out, pull(out)[0]

    exported = jax.export.export(jax.jit(with_gradient if gradient else call), platforms=PLATFORMS)(thing, *args)
    assert exported.platforms == PLATFORMS


def check_all(
    call: Call, variants: Sequence[Callable[[], Any]], batched: Sequence[Any], *, atol: float = 1e-5, gradient: bool = True
) -> None:
    """All of the above; `batched` are the arguments with a leading axis, and gradients are with respect to the last."""
    thing = variants[0]()
    first = [jax.tree.map(lambda leaf: leaf[0], arg) for arg in batched]
    for make in variants:
        check_pytree(make())
    check_jit(call, thing, *first, atol=atol)
    check_vmap(call, thing, *batched, atol=atol)
    check_traces(call, variants, *first)
    if gradient:
        check_gradient(call, thing, *first)
    check_lowers(call, thing, *first, gradient=gradient)


def check_run(model: jv.Model, variants: Sequence[Any], *, objective: Any = None, name: str = "", **options: Any) -> jv.Result:
    """In the engine: a chunk of all units equals one at a time on each of two devices, nothing compiles anew, and it rises.

    `variants` are the objectives, or with `name`, the values of that option of `visualize` for an objective.
    """

    def draw(variant: Any, **more: Any) -> jv.Result:
        given = {name: variant} if name else {}
        return jv.visualize(model, objective if name else variant, **(options | given | more))

    whole = draw(variants[0], mesh=jv.make_mesh(1), chunk=4)
    assert len(whole) in (3, 4) and np.isfinite(whole.history).all()
    spread = draw(variants[0], mesh=jv.make_mesh(2), chunk=2)
    np.testing.assert_allclose(spread.images, whole.images, atol=1e-4)
    np.testing.assert_allclose(spread.history, whole.history, rtol=1e-3, atol=1e-5)
    with compilations() as compiled:
        for variant in variants[1:]:
            draw(variant, mesh=jv.make_mesh(2), chunk=2, seed=7, learning_rate=0.03)
    assert not compiled.names
    late = whole.history[..., -(whole.history.shape[-1] // 4) :].mean(-1)
    assert (late > whole.history[..., 0]).all(), "what is optimised did not rise"
    return whole


def _length(arg: Any) -> int:
    return jax.tree.leaves(arg)[0].shape[0]


def convolutions(fn: Any, *args: Any) -> int:
    """Return how many convolutions a program has: lowered for a TPU, where 1 x 1 ones are convolutions too."""
    return jax.jit(fn).trace(*args).lower(lowering_platforms=("tpu",)).as_text().count("stablehlo.convolution")
