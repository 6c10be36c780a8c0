"""A cluster gives the bytes that one machine gives, also when a machine is lost."""

from __future__ import annotations

import importlib.util
import json
import pathlib

import numpy as np
import pytest

from data_pipeline.conversion import cluster
from data_pipeline.conversion.convert import Job
from data_pipeline.options import Options
from data_pipeline.prepare import prepare
from data_pipeline.render.files import concatenate, midi_bytes
from data_pipeline.selection.store import RUN
from musicvae_jax.config import InputError
from musicvae_jax.tasks import FIRST_NOTE_ON
from tests.support.commands import run_python
from tests.support.store_files import contents

HAS_RAY = importlib.util.find_spec("ray") is not None

# Two nodes of one processor each; one of them is killed when the first rows are there.
SCRIPT = """
import logging, sys, threading, time, warnings
warnings.simplefilter("ignore")
import ray
from ray.cluster_utils import Cluster
from data_pipeline.conversion import cluster as ours
from data_pipeline.options import Options
from data_pipeline.prepare import prepare

source, folder = sys.argv[1:]
kill = False
ours._BATCH_FILES = 10
get_node = ray._private.services.get_node

def wait_for_node(*names):  # Ray waits 30 s, which a busy machine may exceed
    while True:
        try:
            return get_node(*names)
        except RuntimeError:
            time.sleep(1)

ray._private.services.get_node = wait_for_node
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
second = nodes.add_node(num_cpus=1)
nodes.wait_for_nodes()
distribute = ours._distribute

def watched(ray, jobs):
    for number, done in enumerate(distribute(ray, jobs)):
        yield done
        if number == 5:
            print("\\nnodes", sum(n["Alive"] for n in ray.nodes()), flush=True)
            if kill:
                nodes.remove_node(second, allow_graceful=False)
                print("\\nkilled", flush=True)

ours._distribute = watched
for kill in (False, True):
    output = folder + ("/killed" if kill else "/whole")
    prepare(Options(inputs=(source,), tasks=("mel_2bar",), output=output, executor="ray",
                    ray_address=nodes.address))
nodes.shutdown()
"""


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder of files, one of them damaged, one for the other engine."""
    folder = tmp_path_factory.mktemp("cluster") / "music"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(50):
        rows = np.zeros((4, 32), np.uint8)
        rows[:, ::4] = rng.integers(FIRST_NOTE_ON + 20, 60, (4, 8))
        data = midi_bytes(concatenate(rows, "mel_2bar", rest_bars=0))
        (folder / f"{number}.mid").write_bytes(data[: -20 if number == 7 else None])
    (folder / "a.abc").write_text("X:1\nL:1/8\nK:C\n" + "CDEFGABc|" * 20)
    return folder


@pytest.fixture(scope="module")
def local(music: pathlib.Path) -> dict[str, bytes]:
    """The store that one machine makes."""
    output = music.parent / "local"
    prepare(Options(inputs=(str(music),), tasks=("mel_2bar",), output=str(output), num_workers=2))
    return contents(output)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_RAY, reason="ray is not installed: the extra cluster brings it")
def test_two_nodes_give_the_same_bytes_also_when_one_is_killed(
    music: pathlib.Path, local: dict[str, bytes], tmp_path: pathlib.Path
) -> None:
    done = run_python("-c", SCRIPT, str(music), str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    said = [line for line in done.stdout.splitlines() if line in ("nodes 2", "killed")]
    assert said == ["nodes 2", "nodes 2", "killed"]
    for name in ("whole", "killed"):
        assert contents(tmp_path / name) == local
        assert json.loads((tmp_path / name / RUN).read_text())["executor"] == "ray"


@pytest.mark.skipif(not HAS_RAY, reason="ray is not installed: the extra cluster brings it")
def test_an_address_without_a_cluster_is_reported() -> None:
    script = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "from data_pipeline.conversion.cluster import ray_executor\n"
        "list(ray_executor('127.0.0.1:1', 1)([]))\n"
    )
    done = run_python("-c", script)
    assert "InputError: ray_address: no Ray cluster at '127.0.0.1:1': " in done.stderr


def test_missing_ray_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="'ray' needs the package ray: pip install this project"):
        cluster.ray_executor(None, 1)


def test_batches_are_small_in_files_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_BATCH_FILES", 3)
    monkeypatch.setattr(cluster, "_BATCH_BYTES", 100)
    sizes = [10, 10, 10, 90, 20, 200, 5]
    jobs = [(i, Job("a.mid", bytes(n), (), "4/4")) for i, n in enumerate(sizes)]
    parts = [[len(job.data) for _, job in batch] for batch in cluster._batches(jobs)]
    assert parts == [[10, 10, 10], [90, 20], [200], [5]]
    assert list(cluster._batches([])) == []
