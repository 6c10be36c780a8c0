from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import textwrap

import jax
from jax.sharding import PartitionSpec
from synthetic_store import write_store

from musicvae_jax import sharding


def test_the_mesh_has_all_devices_on_the_data_axis() -> None:
    mesh = sharding.make_mesh()
    assert mesh.size == len(jax.devices())
    assert mesh.axis_names == ("data",)
    assert sharding.replicated(mesh).spec == PartitionSpec()
    assert sharding.along_data(mesh, axis=1).spec == PartitionSpec(None, "data")


# Eight devices and one, in one process: the losses of each step, and what was compiled after
# the first step of an epoch.
PROGRAM = textwrap.dedent("""
    import sys

    import jax
    import pytest

    from musicvae_jax import data, loop, sharding
    from musicvae_jax.config import InputError
    from musicvae_jax.tasks import get_task

    jax.config.update("jax_numpy_rank_promotion", "raise")
    store, runs = data.open_store(sys.argv[1]), sys.argv[2]
    config = get_task(store.task.name).config.replace(
        encoder_sizes=(8,), decoder_sizes=(8,), z_size=4, batch_size=32, accumulation=2,
        sampling_schedule="constant", sampling_rate=0.5, init="default", dtype="float32",
        train_steps=6, log_every=1, eval_every=4, save_every=100, steps_per_dispatch=4,
    )

    class Watch:
        def __init__(self):
            self.losses, self.validations, self.late = [], [], []
            jax.monitoring.register_event_duration_secs_listener(self.compiled)

        def compiled(self, event, seconds, **labels):
            if event.endswith("backend_compile_duration") and self.losses:
                self.late.append(labels.get("fun_name"))

        def started(self, summary):
            print(summary.devices)

        def trained(self, progress):
            self.losses.append(progress.figures["loss"])

        def validated(self, step, figures):
            self.validations.append(figures["loss"])

        def saved(self, step):
            pass

    found = {}
    for count in (8, 1):
        watch = Watch()
        loop.fit(config, store, f"{runs}/{count}", watch, devices=jax.devices()[:count])
        assert len(watch.losses) == 6
        assert [name for name in watch.late if "step" in str(name)] == ["jit(eval_step)"]
        found[count] = watch.losses + watch.validations
    print(found)
    assert found[8] == pytest.approx(found[1], rel=1e-5)
    mesh = sharding.make_mesh()
    sharding.check_divides(mesh, 16, "batch_size")
    with pytest.raises(InputError, match="batch_size: 12 rows cannot be shared evenly by 8"):
        sharding.check_divides(mesh, 12, "batch_size")
""")


def test_eight_devices_give_the_losses_of_one(tmp_path: pathlib.Path) -> None:
    store = write_store(tmp_path / "store", "mel_2bar", {"train": 80, "validation": 20, "test": 0})
    # Eight devices, and code that is compiled quickly: it makes few steps.
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, store, tmp_path / "runs"],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "8 x cpu" in done.stdout
    assert "1 x cpu" in done.stdout
