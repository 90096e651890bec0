"""The operations against torch's, and the rules that replace one of them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxviz import ops
from jaxviz.ops import DECONVNET, EXACT, GUIDED, REDIRECTED

X = np.array([[-2.0, -1.0, 0.0, 1.0, 2.0, 3.0]], np.float32)
G = np.array([[1.0, -1.0, 1.0, -1.0, 1.0, -2.0]], np.float32)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": (2, 2), "padding": ((3, 3), (3, 3))},
        {"stride": (1, 2), "padding": ((2, 2), (0, 0)), "dilation": (2, 1)},
        {"groups": 2, "padding": ((1, 1), (1, 1))},
    ],
)
@pytest.mark.parametrize("biased", [False, True])
def test_conv_matches_torch(options, biased):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    groups = options.get("groups", 1)
    x = rng.normal(size=(2, 9, 11, 4)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 4 // groups, 6)).astype(np.float32)
    bias = rng.normal(size=6).astype(np.float32) if biased else None
    theirs = torch.nn.functional.conv2d(
        torch.from_numpy(x.transpose(0, 3, 1, 2).copy()),
        torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()),
        None if bias is None else torch.from_numpy(bias),
        options.get("stride", 1),
        tuple(p[0] for p in options.get("padding", ((0, 0), (0, 0)))),
        options.get("dilation", 1),
        groups,
    )
    np.testing.assert_allclose(ops.conv(x, kernel, bias, **options), theirs.numpy().transpose(0, 2, 3, 1), atol=1e-5, rtol=1e-5)


def test_batch_norm_is_the_formula():
    rng = np.random.default_rng(0)
    x, scale, bias, mean = (rng.normal(size=s).astype(np.float32) for s in ((2, 5, 4, 3), 3, 3, 3))
    var = rng.uniform(0.1, 2, 3).astype(np.float32)
    expected = (x - mean) / np.sqrt(var + 1e-3) * scale + bias
    np.testing.assert_allclose(ops.batch_norm(x, scale, bias, mean, var, epsilon=1e-3), expected, atol=1e-5)


def torch_rule(rule):
    """Return the gradient of a ReLU in torch whose backward hook follows the rule, as the papers' codes do."""
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(X.copy()).requires_grad_()
    relu = torch.nn.ReLU()
    hooks = {
        "exact": lambda module, grad_in, grad_out: None,
        "guided": lambda module, grad_in, grad_out: (torch.clamp(grad_in[0], min=0),),
        "deconvnet": lambda module, grad_in, grad_out: (torch.clamp(grad_out[0], min=0),),
    }
    relu.register_full_backward_hook(hooks[rule])
    relu(x).backward(torch.from_numpy(G.copy()))
    return x.grad.numpy()


@pytest.mark.parametrize("rule, table", [("exact", EXACT), ("guided", GUIDED), ("deconvnet", DECONVNET)])
def test_relu_rules_match_torch_hooks(rule, table):
    y, pull = jax.vjp(table.relu, X)
    np.testing.assert_array_equal(y, np.maximum(X, 0))
    np.testing.assert_array_equal(pull(G)[0], torch_rule(rule))
    np.testing.assert_array_equal(jax.jit(jax.vmap(lambda x, g: jax.vjp(table.relu, x)[1](g)[0]))(X, G), pull(G)[0])


def test_relu_rules_by_hand():
    np.testing.assert_array_equal(jax.vjp(GUIDED.relu, X)[1](G)[0], [[0, 0, 0, 0, 1, 0]])
    np.testing.assert_array_equal(jax.vjp(DECONVNET.relu, X)[1](G)[0], [[1, 0, 1, 0, 1, 0]])


def test_a_table_is_a_key_of_compiled_programs():
    traced = []

    def run(x, table):
        traced.append(table)
        return table.relu(x)

    compiled = jax.jit(run, static_argnums=1)
    for table in (EXACT, GUIDED, dataclasses.replace(EXACT), dataclasses.replace(EXACT, relu=ops.guided_relu), GUIDED):
        compiled(jnp.ones(3), table)
    assert traced == [EXACT, GUIDED]


def test_the_derivative_of_relu_at_zero_is_zero():
    assert jax.grad(EXACT.relu)(0.0) == 0


def test_redirected_relu_helps_only_images_without_any_gradient():
    x = jnp.array([[-1.0, -2.0, -3.0], [-1.0, 2.0, -3.0], [1.0, -2.0, 3.0]])
    g = jnp.array([[-1.0, 2.0, -3.0], [-1.0, 2.0, -3.0], [0.0, -2.0, 0.0]])
    by_hand = [[-1.0, 0.0, -3.0], [0.0, 2.0, 0.0], [0.0, -2.0, 0.0]]
    np.testing.assert_array_equal(jax.vjp(REDIRECTED.relu, x)[1](g)[0], by_hand)
    np.testing.assert_array_equal(REDIRECTED.relu(x), EXACT.relu(x))
