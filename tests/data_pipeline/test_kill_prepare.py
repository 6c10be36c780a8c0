"""A conversion that is killed at any moment resumes and ends in the same bytes."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from data_pipeline.render.files import concatenate, midi_bytes
from data_pipeline.selection.store import RUN
from musicvae_jax.tasks import FIRST_NOTE_ON
from tests.support.store_files import contents

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Forks after all is imported and compiled, so that the moments fall into the work itself; files
# are converted in the process that is killed.
SCRIPT = """
import os, pathlib, random, shutil, signal, sys, time
from data_pipeline import prepare
from data_pipeline.conversion import convert, journal, workers
from data_pipeline.options import Options

def here(jobs):
    for key, job in jobs:
        yield key, workers.Outcome(convert.convert(job))

def run(output):
    prepare.prepare(Options(inputs=(source,), tasks=("mel_2bar", "drums_2bar"), output=output))

prepare.local_executor = lambda num_workers: here
source, whole, killed = sys.argv[1:]
run(whole)
shutil.rmtree(whole)
run(whole)
journal._FLUSH_SECONDS = 0.0
rng, kills = random.Random(0), 0
work = pathlib.Path(killed).with_name("." + pathlib.Path(killed).name + ".unfinished")

def written():
    try:
        return sum(path.stat().st_size for path in work.rglob("*"))
    except OSError:  # renamed or removed meanwhile
        return -1

while kills < 20:
    before, child = written(), os.fork()
    if not child:
        run(killed)
        os._exit(0)
    # However fast the machine: each child has written something when it is killed.
    pid, status = 0, 0
    while not pid and written() == before:
        time.sleep(0.0005)
        pid, status = os.waitpid(child, os.WNOHANG)
    if not pid:
        time.sleep(rng.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
    if status == signal.SIGKILL:
        kills += 1
    elif kills < 19:
        shutil.rmtree(killed)
run(killed)
"""


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path: pathlib.Path) -> None:
    source = tmp_path / "music"
    source.mkdir()
    rng = np.random.default_rng(0)
    for number in range(150):
        rows = np.zeros((20, 32), np.uint8)
        rows[:, ::2] = rng.integers(FIRST_NOTE_ON + 20, 60, (20, 16))
        data = midi_bytes(concatenate(rows, "mel_2bar", rest_bars=0))
        (source / f"{number}.mid").write_bytes(data)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    script = [sys.executable, "-c", SCRIPT, str(source), str(whole), str(killed)]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("resuming:") >= 5
    assert contents(killed) == contents(whole)
    assert (killed / RUN).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "music", "whole"]
