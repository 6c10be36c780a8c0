"""The vendored scripts are those of the manifest and the policy, and the page stays small."""

from __future__ import annotations

import base64
import hashlib
import json
import re

from experiments.studio import safety, static_files

VENDOR = static_files.FOLDER / "vendor"
LARGEST_PAGE = 400_000  # bytes, compressed
LARGEST_PLAYER = 350_000  # of SoundFonts, which is loaded only with --soundfont


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
    player = {path for path in sizes if "spessasynth" in path or "stb-vorbis" in path}
    assert len(player) == 4
    assert sum(sizes[path] for path in player) < LARGEST_PLAYER
    assert sum(size for path, size in sizes.items() if path not in player) < LARGEST_PAGE


def test_the_policy_has_the_hash_of_the_import_map() -> None:
    page = (static_files.FOLDER / "static/index.html").read_text()
    found = re.findall(r'<script type="importmap">(.*?)</script>', page, re.DOTALL)
    assert len(found) == 1
    digest = base64.b64encode(hashlib.sha256(found[0].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in safety.CONTENT_SECURITY_POLICY
    served = static_files.load()
    assert all(path in served for path in json.loads(found[0])["imports"].values())
