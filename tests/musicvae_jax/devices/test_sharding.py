from __future__ import annotations

import os
import pathlib
import textwrap

import jax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from musicvae_jax.config import InputError
from musicvae_jax.devices import sharding
from tests.support.commands import run_python
from tests.support.synthetic_store import write_store


def test_the_mesh_has_all_devices_on_the_data_axis() -> None:
    mesh = sharding.make_mesh()
    assert mesh.size == len(jax.devices())
    assert mesh.axis_names == ("data", "model")
    assert mesh.shape["model"] == 1
    assert sharding.replicated(mesh).spec == PartitionSpec()
    assert sharding.along_data(mesh, axis=1).spec == PartitionSpec(None, "data")
    with pytest.raises(InputError, match=f"model_parallel: 3 does not divide the {mesh.size} dev"):
        sharding.make_mesh(model_parallel=3)


@pytest.mark.parametrize(
    ("data", "model", "how", "shape", "expected"),
    [
        (4, 2, "replicated", (98, 32), (None, "model")),
        (4, 1, "replicated", (98, 32), (None, None)),
        (4, 2, "fsdp", (96, 32), ("data", "model")),
        (4, 1, "fsdp", (96, 32), ("data", None)),
        (4, 1, "fsdp", (98, 32), (None, "data")),  # 4 does not divide 98
        (4, 2, "fsdp", (98, 32), (None, ("model", "data"))),
        (4, 2, "fsdp", (97, 33), (None, None)),
        (4, 2, "fsdp", (2048,), (("model", "data"),)),
        (4, 2, "fsdp", (512,), ()),  # too small to gain by it
        (4, 2, "fsdp", (), ()),
    ],
)
def test_where_an_array_is_cut(
    data: int, model: int, how: str, shape: tuple[int, ...], expected: tuple[object, ...]
) -> None:
    mesh = AbstractMesh((data, model), ("data", "model"))
    assert sharding.spec(mesh, shape, how) == PartitionSpec(*expected)


# One run on all meshes and shardings in turn, each resuming from the checkpoint of the one before,
# and a run on one device: the losses of each step, and how often each program was compiled.
PROGRAM = textwrap.dedent("""
    import collections
    import sys

    import jax
    import pytest

    from musicvae_jax import data
    from musicvae_jax.config import InputError
    from musicvae_jax.devices import sharding
    from musicvae_jax.tasks import get_task
    from musicvae_jax.training import loop

    jax.config.update("jax_numpy_rank_promotion", "raise")
    store, run_dir, architecture = data.open_store(sys.argv[1]), sys.argv[2], sys.argv[3]
    config = get_task(store.task.name).config.replace(
        architecture=architecture, encoder_sizes=(8,), decoder_sizes=(8,), z_size=4,
        batch_size=32, accumulation=2 if architecture == "flat" else 1,
        sampling_schedule="constant", sampling_rate=0.5 if architecture == "flat" else 0.0,
        optimiser="adam" if architecture == "flat" else "muon",
        init="default", dtype="float32", log_every=1, eval_every=2, save_every=100,
        steps_per_dispatch=2,
    )
    compiled = collections.Counter()

    def count(event, seconds, **labels):
        if event.endswith("backend_compile_duration"):
            compiled[str(labels.get("fun_name"))] += 1

    jax.monitoring.register_event_duration_secs_listener(count)

    class Watch:
        def __init__(self):
            self.losses, self.validations, self.devices = {}, {}, None

        def started(self, summary):
            self.devices, self.first_step = summary.devices, summary.first_step

        def trained(self, progress):
            self.losses[progress.step] = progress.figures["loss"]

        def validated(self, step, figures):
            self.validations[step] = figures["loss"]

        def sampled(self, step, samples):
            pass

        def saved(self, step):
            pass

    # What validates depends on the mesh alone: one with both axes is enough.
    silent = store._replace(splits=store.splits | {"validation": store.splits["test"]})

    def fit(name, devices, store, **fields):
        compiled.clear()
        watch = Watch()
        outcome = loop.fit(
            config.replace(**fields), store, f"{run_dir}/{name}", watch, devices=devices
        )
        steps = {name: number for name, number in compiled.items() if "step" in name}
        expected = {"jit(run_steps)": 1}
        if len(store.splits["validation"]):
            expected["jit(eval_step)"] = 1
        assert steps == expected, compiled
        return watch, outcome.state

    # Each way to cut alone and both together; the hierarchy with both together.
    meshes = [(1, "fsdp"), (4, "replicated"), (2, "fsdp")]
    if architecture != "flat":
        meshes = [(4, "fsdp")]
    alone, _ = fit("alone", jax.devices()[:1], store, train_steps=2 * len(meshes))
    assert alone.devices == "1 x cpu"
    for turn, (model_parallel, param_sharding) in enumerate(meshes):
        watch, state = fit(
            "many", jax.devices(), store if turn == 2 else silent, train_steps=2 * turn + 2,
            model_parallel=model_parallel, param_sharding=param_sharding,
        )
        assert (watch.devices, watch.first_step) == ("8 x cpu", 2 * turn)
        assert len(watch.losses) == 2
        assert len(watch.validations) == (architecture == "flat" and turn == 2)
        for step, loss in watch.losses.items():
            assert loss == pytest.approx(alone.losses[step], rel=1e-5)
        for step, loss in watch.validations.items():
            assert loss == pytest.approx(alone.validations[step], rel=1e-5)
        # The largest kernel, and its moments, are cut into as many parts as was asked for.
        parts = model_parallel * (8 // model_parallel if param_sharding == "fsdp" else 1)
        for tree in (state.params, state.optimiser):
            kernel = max(jax.tree.leaves(tree), key=lambda leaf: leaf.size)
            found = {str(shard.index) for shard in kernel.addressable_shards}
            assert len(found) == parts, (kernel.sharding, parts)
        print(model_parallel, param_sharding, watch.losses)
    mesh = sharding.make_mesh(model_parallel=2)
    sharding.check_divides(mesh, 12, "batch_size")
    with pytest.raises(InputError, match="size: 13 rows cannot be shared evenly by 4 groups of"):
        sharding.check_divides(mesh, 13, "size")
    with pytest.raises(InputError, match="size: 12 rows cannot be shared evenly by 8 devices"):
        sharding.check_divides(sharding.make_mesh(), 12, "size")
""")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["flat", "hierdec"])
def test_every_mesh_and_sharding_gives_the_losses_of_one_device(
    architecture: str, tmp_path: pathlib.Path
) -> None:
    # What validates is the same for both: once is enough.
    counts = {"train": 80, "validation": 20 if architecture == "flat" else 0, "test": 0}
    store = write_store(tmp_path / "store", "mel_2bar", counts)
    arguments = (str(store), str(tmp_path / "runs"), architecture)
    devices = "--xla_force_host_platform_device_count=8"
    env = {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {devices}", "JAX_PLATFORMS": "cpu"}
    done = run_python("-c", PROGRAM, *arguments, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("fsdp") == (2 if architecture == "flat" else 1)
