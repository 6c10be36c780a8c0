"""The vendored scripts are those of the manifest, and the page stays small."""

from __future__ import annotations

import hashlib
import json

from experiments.studio import static_files

VENDOR = static_files.FOLDER / "vendor"
LARGEST_PAGE = 400_000  # bytes, compressed, all together


def test_the_manifest_names_every_script_with_its_hash_and_licence() -> None:
    manifest = json.loads((VENDOR / "manifest.json").read_text())
    found = {part["file"]: part["sha256"] for part in manifest}
    scripts = VENDOR.glob("*.js")
    assert found == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in scripts}
    licences = (VENDOR / "LICENSES.txt").read_text()
    for part in manifest:
        assert f"{part['file']}: {part['package']} {part['version']}" in licences
        assert part["licence"] in licences


def test_the_page_is_small() -> None:
    files = {path: file for path, file in static_files.load().items() if path != "/"}
    sizes = {path: len(file.compressed or file.content) for path, file in files.items()}
    assert "/vendor/spessasynth_processor.min.js" in sizes  # which only SoundFonts need
    assert sum(sizes.values()) < LARGEST_PAGE
