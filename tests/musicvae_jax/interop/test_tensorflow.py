"""TensorFlow itself reads what we write; skipped where it is not installed (extra `tensorflow`).

MUSICVAE_TENSORFLOW_PYTHON names the Python of another environment that has it.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from musicvae_jax.interop import reference
from musicvae_jax.interop.bundle_writer import write_bundle
from tests.support.model_cases import case

PYTHON = os.environ.get("MUSICVAE_TENSORFLOW_PYTHON", sys.executable)
READ = """
import hashlib, json, sys
import tensorflow as tf
reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(sys.argv[1]))
found = {}
for name in reader.get_variable_to_shape_map():
    array = reader.get_tensor(name)
    found[name] = [str(array.dtype), list(array.shape), hashlib.md5(array.tobytes()).hexdigest()]
print(json.dumps(found))
"""


def test_tensorflow_reads_every_tensor(tmp_path: pathlib.Path) -> None:
    known = subprocess.run([PYTHON, "-c", "import tensorflow"], capture_output=True, check=False)
    if known.returncode != 0:
        pytest.skip(f"{PYTHON} has no tensorflow")
    params = case("trio_16bar", "hierdec").params
    tensors = reference.tensors(params, 9, reference.Adam(params, params, 9))
    # So many that the index has a second block.
    tensors |= {f"{n:04d}{'x' * 90}": np.array(n, np.float32) for n in range(3000)}
    write_bundle(tmp_path / "model.ckpt-9", tensors)
    command = [PYTHON, "-c", READ, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == {
        name: [str(array.dtype), list(array.shape), hashlib.md5(array.tobytes()).hexdigest()]
        for name, array in tensors.items()
    }
