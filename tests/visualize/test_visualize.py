"""Batching never shows: vmap == loop == chunked == sharded, one trace for all data, no collectives, every platform."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export

import jaxviz as jv
import jaxviz.engine
from jaxviz.engine import _ascent, _execute
from jaxviz.engine._ascent import BLOCK
from jaxviz.engine._execute import CPU_BLOCK
from tests.compilations import compilations
from tests.tiny import tiny_model

STEPS = 128
OPTIONS = {"steps": STEPS, "size": (16, 20), "seed": 3, "samples": 2}


@pytest.fixture(scope="module")
def whole():
    return jv.visualize(tiny_model(), jv.channel("relu_1", range(7)), mesh=jv.make_mesh(1), chunk=7, **OPTIONS)


FULL = [pytest.param(devices, chunk, marks=pytest.mark.full) for devices, chunk in ((1, 1), (4, 4))]


@pytest.mark.parametrize(("devices", "chunk"), [(1, 3), (2, 4), (4, None), *FULL])
def test_images_do_not_depend_on_chunk_or_devices(whole, devices, chunk):
    mesh = jv.make_mesh(devices)
    result = jv.visualize(tiny_model(), jv.channel("relu_1", range(7)), mesh=mesh, chunk=chunk, **OPTIONS)
    np.testing.assert_allclose(result.images, whole.images, atol=1e-4)
    np.testing.assert_allclose(result.scores, whole.scores, rtol=1e-4)
    assert result.history.shape == (7, 2, STEPS)


def test_images_do_not_depend_on_who_shares_the_batch(whole):
    result = jv.visualize(tiny_model(), jv.channel("relu_1", [9, 5, 2]), mesh=jv.make_mesh(1), **OPTIONS)
    np.testing.assert_allclose(result.images[1:], whole.images[[5, 2]], atol=1e-4)
    one = jv.visualize(tiny_model(), jv.channel("relu_1", 5), mesh=jv.make_mesh(1), **(OPTIONS | {"samples": 1}))
    np.testing.assert_allclose(one.images[0, 0], whole.images[5, 0], atol=1e-4)


def test_seeds_units_and_samples_start_from_different_images():
    draw = partial(jv.visualize, tiny_model(), steps=0, size=16, transforms=())
    first = draw("relu_1:0,1", samples=2).images.reshape(4, -1)
    other = draw("relu_1:0", seed=1).images.reshape(1, -1)
    layer = draw("relu:0").images.reshape(1, -1)
    rows = np.concatenate([first, other, layer])
    distances = np.abs(rows[:, None] - rows[None]).max(-1) + np.eye(len(rows))
    assert distances.min() > 1e-3


def test_module_path_and_node_name_give_the_same_image():
    draw = partial(jv.visualize, tiny_model(), steps=3, size=16, transforms=())
    np.testing.assert_array_equal(draw("fc:1").images, draw("output:1").images)
    np.testing.assert_array_equal(draw("fc:1").images, draw("logit:golf ball").images)


def test_compiled_steps_equal_a_plain_loop():
    """The same ascent written as a user would, without jit, vmap or blocks."""
    model = tiny_model()
    steps = BLOCK + 5
    options = {"steps": steps, "size": 16, "transforms": (), "learning_rate": 0.05, "mesh": jv.make_mesh(1)}
    result = jv.visualize(model, "relu_1:3", **options)
    param = jv.param.fourier((16, 16, 3))
    from jaxviz._visualize.stages import sample_keys
    from jaxviz.objectives._basic import work_ids

    key = sample_keys(0, work_ids(jv.channel("relu_1", [3]), model), 1)[0, 0]
    params = param.init(jax.random.fold_in(key, 0))
    optimizer = optax.adam(0.05)
    state = optimizer.init(params)
    history = []

    def value(params):
        return model.activations(param.decode(params)[None], ["relu_1"])["relu_1"][0, :, :, 3].mean()

    with jax.disable_jit():
        for _ in range(steps):
            score, gradient = jax.value_and_grad(lambda p: -value(p))(params)
            history.append(-float(score))
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(result.history[0, 0], history, rtol=1e-3)
    np.testing.assert_allclose(result.images[0, 0], param.decode(params), atol=1e-3)
    np.testing.assert_allclose(result.scores[0, 0], float(value(params)), rtol=1e-3)


def test_a_compiled_loop_equals_calls_of_a_compiled_step(monkeypatch):
    """Accelerators run a block of steps in one loop; both ways give the same images, and no step count compiles a program."""
    results, calls, steps = [], [], _execute._steps
    monkeypatch.setattr(_execute, "_steps", lambda *args: calls.append(args) or steps(*args))
    run = jaxviz.engine.run
    for loop in (True, False):
        monkeypatch.setattr(jaxviz.engine, "run", partial(run, compiled_loop=loop))
        draw = partial(jv.visualize, objective=jv.channel("relu_1", range(7)), mesh=jv.make_mesh(1), chunk=7)
        results.append(draw(tiny_model(), **OPTIONS))
        assert bool(calls) != loop, "the option decides which of the two runs"
        other = tiny_model(1)
        with compilations() as compiled:
            draw(other, **(OPTIONS | {"steps": 3}))
        assert not compiled.names
    np.testing.assert_allclose(results[0].images, results[1].images, atol=1e-4)
    np.testing.assert_allclose(results[0].history, results[1].history, rtol=1e-3, atol=1e-5)


def test_textbook_ascent_is_clipped_gradient_ascent():
    """`param=pixel, optimizer=optax.sgd`: x <- clip(x + rate * gradient, 0, 1)."""
    model = tiny_model()
    options = {"size": 16, "param": jv.param.pixel, "optimizer": optax.sgd, "learning_rate": 2.0, "transforms": ()}
    x = jv.visualize(model, "relu_1:3", steps=0, **options).images[0, 0]
    value = jax.grad(lambda x: model.activations(x[None], ["relu_1"])["relu_1"][0, :, :, 3].mean())
    for _ in range(4):
        x = np.clip(x + 2.0 * value(jnp.asarray(x)), 0, 1)
    np.testing.assert_allclose(jv.visualize(model, "relu_1:3", steps=4, **options).images[0, 0], x, atol=1e-6)


def test_regularizers_are_subtracted_and_scores_are_the_objective_alone():
    options = {"steps": 5, "size": 16, "transforms": ()}
    regularizers = [jv.regularizers.total_variation(0.01), jv.regularizers.l2(0.002)]
    result = jv.visualize(tiny_model(), "relu_1:3", regularizers=regularizers, **options)
    more = jv.visualize(tiny_model(), "relu_1:3", regularizers=regularizers, **(options | {"steps": 6}))
    image = jnp.asarray(result.images[0, 0])
    penalty = sum(float(regularizer(image)) for regularizer in regularizers)
    np.testing.assert_allclose(more.history[0, 0, 5], result.scores[0, 0] - penalty, rtol=1e-4)


def test_the_objective_rises():
    for objective in ("relu_1:0", "logit:church", jv.neuron("relu", 2), jv.layer("relu", "square"), jv.layer("conv2", "norm")):
        result = jv.visualize(tiny_model(), objective, steps=60, size=16, samples=3, transforms=())
        assert (result.history[..., -5:].mean(-1) > result.history[..., :5].mean(-1)).all(), objective


def test_a_unit_that_is_silent_at_the_start_still_rises():
    model = tiny_model()
    state = jax.tree.map(lambda leaf: leaf, model.state)
    silent = model.with_state(state)
    bias = silent.state["conv2"]["bias"] if "bias" in silent.state["conv2"] else None
    assert bias is not None
    bias.set_value(jnp.full_like(bias[...], -0.3))
    start = jv.visualize(silent, "relu_1:0-3", steps=0, size=16, transforms=())
    assert (start.scores == 0).all()  # no gradient at all by the exact rule
    result = jv.visualize(silent, "relu_1:0-3", steps=200, size=16, transforms=())
    assert (result.scores > 0).all()


def test_one_trace_whatever_the_data():
    """Units, seeds, learning rates, weights, step counts, networks' weights and amounts are data: built anew, no retrace."""
    traces = []

    def counted(acts, images):
        traces.append(1)
        return acts["relu_1"].mean((1, 2, 3))

    def call(unit, seed, rate, weight, steps, network, amount):
        jv.visualize(
            tiny_model(network),
            jv.channel("relu_1", [unit, unit + 1]) + weight * jv.objectives.from_function(counted),
            seed=seed,
            learning_rate=rate,
            steps=steps,
            size=16,
            transforms=[jv.transforms.jitter(amount), jv.transforms.scale(1 - amount / 10, 1.1)],
            regularizers=[jv.regularizers.l1(weight)],
            optimizer=partial(optax.sgd, momentum=0.9),
            param=jv.param.fourier(decay=1.0),
            mesh=jv.make_mesh(2),
            chunk=2,
        )

    call(0, 0, 0.05, 0.5, 3, 0, 1)
    before = len(traces)
    with compilations() as compiled:
        for i in range(1, 4):
            call(i, i, 0.05 + 0.01 * i, 0.5 + i, 3 + 31 * i, i, 1 + i % 2)
    assert not compiled.names
    bound_and_score = 3 * 1  # binding traces the function once a call to find the layers it reads
    assert len(traces) - before == bound_and_score


def lowered_inputs(mesh):
    """The compiled program's own arguments, caught at the door."""
    caught = {}
    real = _execute._run_chunk

    def catch(mesh, stages, *rest):
        caught.update(stage=stages[-1])
        return real(mesh, stages, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_execute, "_run_chunk", catch)
        jv.visualize(tiny_model(), "relu_1:0-3", steps=1, size=16, mesh=mesh)
    recipe, part = caught["stage"].recipe, caught["stage"].units
    return recipe, part, jax.eval_shape(partial(_execute._start, mesh), recipe, part)


def test_the_sharded_program_has_no_collectives_and_donates_its_carry():
    mesh = jv.make_mesh(4)
    recipe, part, carry = lowered_inputs(mesh)
    images = 16 * (16 // 2 + 1) * 3 * 2 * 4  # bytes of one image's Fourier parameters
    zero = np.int32(0)
    for program, scalars in ((_execute._block, (zero, zero)), (_execute._step, (zero,))):
        compiled = program.lower(mesh, recipe, part, carry, *scalars).compile()
        text = compiled.as_text()
        for collective in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
            assert collective not in text
        assert compiled.memory_analysis().alias_size_in_bytes >= 3 * images  # parameters and both moments of Adam


def test_the_programs_lower_for_every_platform():
    recipe, part, carry = lowered_inputs(jv.make_mesh(1))
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (recipe, part, carry))
    many = jax.vmap(_ascent.block, in_axes=(None, 0, 0, None, None))
    step = jax.ShapeDtypeStruct((), jnp.int32)
    exported = export.export(jax.jit(many), platforms=("cpu", "cuda", "tpu"))(*shapes, step, step)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    many = jax.vmap(_ascent.finish, in_axes=(None, 0, 0))
    assert export.export(jax.jit(many), platforms=("cpu", "cuda", "tpu"))(*shapes).platforms == ("cpu", "cuda", "tpu")


def test_progress_is_reported_after_every_block():
    seen = []
    steps = 2 * CPU_BLOCK + 3
    options = {"steps": steps, "size": 16, "samples": 2, "mesh": jv.make_mesh(2), "chunk": 2, "transforms": ()}
    jv.visualize(tiny_model(), "relu_1:0-4", progress=seen.append, **options)
    assert [p.step for p in seen] == [CPU_BLOCK, 2 * CPU_BLOCK, steps] * 3
    assert seen[-1].images_done == seen[-1].images == 10
    assert seen[-1].seconds_left == 0 and seen[-1].images_per_second > 0
    assert seen[2].images_done == 4


def test_ctrl_c_keeps_the_finished_units():
    def interrupt(progress):
        if progress.images_done >= 2:
            raise KeyboardInterrupt

    options = {"steps": 2, "size": 16, "mesh": jv.make_mesh(1), "chunk": 2, "transforms": ()}
    with pytest.raises(jv.Interrupted) as caught:
        jv.visualize(tiny_model(), "relu_1:0-5", progress=interrupt_after(2), **options)
    assert caught.value.result.labels == ("relu_1:0", "relu_1:1")
    with pytest.raises(jv.Interrupted) as caught:
        jv.visualize(tiny_model(), "relu_1:0-5", progress=interrupt, **options)
    assert caught.value.result is None


def interrupt_after(reports):
    """Raise Ctrl-C at the report after so many."""
    seen = []

    def report(progress):
        seen.append(progress)
        if len(seen) == reports:
            raise KeyboardInterrupt

    return report


def test_memory_of_a_program_grows_with_its_units():
    mesh = jv.make_mesh(1)
    recipe, part, _ = lowered_inputs(mesh)
    one, two, three = (_execute._memory(_execute.Stage(recipe, part, 1), mesh, n) for n in (1, 2, 3))
    assert one < two < three
    assert abs((three - two) - (two - one)) < 0.2 * (two - one)


def test_precision_is_part_of_the_program():
    low = jv.visualize(tiny_model(), "relu_1:0", steps=2, size=16, transforms=(), precision="bfloat16")
    high = jv.visualize(tiny_model(), "relu_1:0", steps=2, size=16, transforms=(), precision="highest")
    np.testing.assert_allclose(low.images, high.images, atol=0.05)
    assert jax.config.jax_default_matmul_precision is None


def test_networks_of_ones_own_and_pure_functions():
    result = jv.visualize(lambda images: images[..., 0].mean((1, 2))[:, None], "output:0", steps=100, size=8, transforms=())
    assert result.images[0, 0, ..., 0].mean() > 0.7
    assert result.labels == ("output:0",)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": "relu_9:0"}, "relu_1"),
        ({"objective": "relu_1:99"}, "0 to 11"),
        ({"objective": "logit:gulf ball"}, "golf ball"),
        ({"objective": []}, "at least one"),
        ({"objective": 3}, "objective"),
        ({"objective": "relu_1:5-2"}, "20-31"),
        ({"objective": jv.neuron("relu_1", 0, y=40)}, "0 to 3"),
        ({"objective": jv.neuron("fc", 0, y=0)}, "no positions"),
        ({"objective": lambda acts, images: acts["relu"].sum()}, "(S,)"),
        ({"steps": -1}, "steps"),
        ({"samples": 0}, "samples"),
        ({"size": (3, 4, 5)}, "size"),
        ({"size": 0}, "size"),
        ({"chunk": 0}, "chunk"),
        ({"restarts": 0}, "restarts"),
        ({"scales": (0.5, 0.9)}, "end in 1"),
        ({"scales": 0}, "octaves"),
        ({"snapshots": [2]}, "snapshots"),
    ],
)
def test_bad_input_is_an_error_that_helps(options, words):
    options = {"objective": "relu_1:0", "steps": 1, "size": 16} | options
    with pytest.raises(jv.ArgumentError, match=words.replace("(", r"\(").replace(")", r"\)")):
        jv.visualize(tiny_model(), options.pop("objective"), **options)
