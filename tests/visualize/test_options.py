"""Every option of an image run is visible: in signatures, to `help`, to a type checker."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

import jaxviz as jv
from jaxviz._visualize import options
from jaxviz._visualize.options import Options, VisualizeOptions
from tests.tiny import random_images, tiny_model

DEFAULTS = {field.name: field.default for field in dataclasses.fields(Options)}


def keywords(function) -> dict[str, object]:
    parameters = inspect.signature(function).parameters.values()
    assert not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def test_the_typed_dict_the_defaults_and_the_signature_of_visualize_agree():
    assert set(VisualizeOptions.__annotations__) == set(DEFAULTS)
    assert keywords(jv.visualize) == DEFAULTS
    assert keywords(jv.iter_visualize) == DEFAULTS


@pytest.mark.parametrize(
    ("function", "passed", "own"),
    [
        (jv.invert, options.InvertOptions, {"distance", "names", "param", "transforms", "regularizers", "learning_rate"}),
        (jv.deepdream, options.DreamOptions, {"octaves", "ratio", "steps", "learning_rate", "roll", "smoothing", "size"}),
        (jv.caricature, options.CaricatureOptions, {"cossim_power", "transforms", "size", "names"}),
        (jv.accentuate, options.AccentuateOptions, {"penalty", "layer", "size", "names"}),
    ],
)
def test_options_that_are_passed_on_show_with_the_defaults_of_visualize(function, passed, own):
    shown = keywords(function)
    assert own | set(passed.__annotations__) <= set(shown)
    assert not own & set(passed.__annotations__)
    assert {name: shown[name] for name in passed.__annotations__} == {name: DEFAULTS[name] for name in passed.__annotations__}


def test_an_option_that_does_not_exist_is_refused():
    for call in (jv.visualize, jv.iter_visualize):
        with pytest.raises(TypeError, match="stepz"):
            call(tiny_model(), "relu_1:0", stepz=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="stepz"):
        jv.deepdream(tiny_model(), random_images(16, 16, 3), "relu_1", stepz=3)  # type: ignore[call-arg]


def test_wrong_options_are_refused_before_the_iterator_starts():
    with pytest.raises(jv.ArgumentError, match="samples"):
        jv.iter_visualize(tiny_model(), "relu_1:0", samples=0)
