"""The command line's expressions: Python's, and nothing that Python could do beyond them."""

from __future__ import annotations

import functools

import numpy as np
import optax
import pytest
import typer

import jaxviz as jv
from jaxviz._errors import ArgumentError
from jaxviz.cli._common import options
from jaxviz.cli._common.expressions import evaluate
from tests.tiny import tiny_model

NAMES = {"pair": lambda a, b=2: (a, b), "one": lambda: 1}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("one", 1),
        ("one()", 1),
        ("pair(3)", (3, 2)),
        (" pair([1, (2, 'x')], b=-0.5) ", ([1, (2, "x")], -0.5)),
        ("2 * one + one / 4 - 1e-1", 2.15),
        ("one, pair(None, True)", (1, (None, True))),
    ],
)
def test_values(text, value):
    assert evaluate(text, NAMES) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expression"),
        ("pair(", "expression"),
        ("par(1)", "pair"),
        ("__import__('os')", "__import__"),
        ("pair.__class__", "Cannot read"),
        ("one()()", "Cannot read"),
        ("lambda: 1", "Cannot read"),
        ("[x for x in one]", "Cannot read"),
        ("2 ** 10 ** 10", "Cannot read"),
        ("pair(*[1])", "Cannot read"),
        ("pair(**one)", "Cannot read"),
        ("f'{one}'", "Cannot read"),
        ("b'x'", "Cannot read"),
        ("pair(c=1)", "write pair"),
        ("one(1)", "write one"),
        ("1 / 0", "division"),
        ("one + 'x'", "unsupported"),
        ("(" * 5000, "expression"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(ArgumentError, match=message):
        evaluate(text, NAMES)


def test_targets_are_strings_or_calls(tmp_path):
    model = tiny_model()
    probes = np.eye(3, 8, dtype=np.float32)
    np.save(tmp_path / "probes.npy", probes)
    found = options.read_target(f'direction("relu", load("{tmp_path / "probes.npy"}")) - 0.5 * diversity("relu")')
    expected = jv.direction("relu", probes) - 0.5 * jv.diversity("relu")
    assert found.bind(model, (16, 16)).labels(model) == expected.bind(model, (16, 16)).labels(model)
    np.testing.assert_array_equal(found.terms[0].vector, probes)  # type: ignore[attr-defined]
    assert options.read_target("relu:1,3").bind(model, (16, 16)).labels(model) == ("relu:1", "relu:3")
    for wrong in ('load("nothing.npy")', "channel(3)(4)", 'chanel("relu")', 'load("' + str(tmp_path / "probes.npy") + '")'):
        with pytest.raises(ArgumentError):
            options.read_target(wrong)


def test_options_are_the_librarys_own():
    fourier = options.read_param("fourier(decay=1, desaturation=2)")
    assert isinstance(fourier, type(jv.param.fourier())) and fourier.decay == 1 and fourier.desaturation == 2
    assert options.read_param("alpha(laplacian(levels=2))").with_shape((8, 8, 3)).shape == (8, 8, 3)
    several = options.read_transforms("pad(4), jitter(8)")
    assert [type(part).__name__ for part in several.parts] == ["Pad", "Jitter"]
    assert options.read_transforms("none") == () and len(options.read_transforms("standard").parts) == 5
    penalties = options.read_regularizers(["l2=0.25", "p_norm(0.1, p=4)"])
    assert penalties[0].weight == 0.25 and penalties[1].weight == np.float32(0.1)
    assert options.read_optimizer("adam") is optax.adam
    partial = options.read_optimizer("sgd(momentum=0.9)")
    assert isinstance(partial, functools.partial) and partial.func is optax.sgd and partial.keywords == {"momentum": 0.9}
    assert options.read_numbers("0.25,1") == [0.25, 1.0] and options.read_numbers(None) == []


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (options.read_param, "wavelet"),
        (options.read_param, "3"),
        (options.read_transforms, "pad"),
        (options.read_transforms, "4"),
        (options.read_optimizer, "sgd(0.9)"),
        (options.read_optimizer, "newton"),
        (lambda text: options.read_regularizers([text]), "l2"),
    ],
)
def test_wrong_options_are_a_wrong_use(read, text):
    with pytest.raises(typer.BadParameter):
        read(text)
