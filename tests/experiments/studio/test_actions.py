"""Every request of the studio gives what `MusicVAE` gives."""

from __future__ import annotations

import io
import wave
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipeline.extraction.engines import extract_rows
from data_pipeline.render.files import midi_bytes
from data_pipeline.render.sequences import concatenate
from experiments.studio import rows
from experiments.studio.actions import ACTIONS
from experiments.studio.downloads import DOWNLOADS
from experiments.studio.models.latent import StudioModel
from musicvae_jax.latent import attributes, fitted_prior, paths
from musicvae_jax.tasks import get_task
from tests.support.model_cases import random_tokens
from tests.support.studio_client import MODELS, download, get, models, post, tokens_of

each_model = pytest.mark.parametrize("name", MODELS)


def given_rows(name: str, num: int, seed: int = 0) -> np.ndarray:
    return random_tokens(get_task(name), np.random.default_rng(seed), num)


def sent(tokens: np.ndarray) -> list[dict[str, Any]]:
    return [{"tokens": row.tolist()} for row in tokens]


def same(made: list[dict[str, Any]], expected: np.ndarray, model: StudioModel) -> None:
    """Compare rows of a reply with tokens of `MusicVAE`, and the rows' parts with each other."""
    tidied = rows.tidy(expected, model.task)
    np.testing.assert_array_equal(tokens_of(made), tidied)
    measured = attributes.measure(tidied, model.task)
    for number, row in enumerate(made):
        for name, value in row["attributes"].items():
            assert value == pytest.approx(measured[name][number], abs=1e-6, nan_ok=True) or (
                value is None and np.isnan(measured[name][number])
            )
        sequence = concatenate([tidied[number]], model.task.name)
        assert len(row["notes"]) == len(sequence.notes)


def test_models_are_described() -> None:
    found = get("/api/models").json()["models"]
    assert [model["name"] for model in found] == list(MODELS)
    melody, drums, trio = found
    assert melody["title"] == "2 bars of melody"
    assert (melody["steps"], melody["bars"], melody["z_size"]) == (32, 2, 4)
    leaves = jax.tree.leaves(models()["mel_2bar"].vae.params)
    assert melody["parameters"] == sum(leaf.size for leaf in leaves)
    lines = melody["tracks"][0]["lines"]
    assert (len(lines), lines[0], lines[-1]["name"]) == (88, {"pitch": 21, "name": "A0"}, "C8")
    assert drums["tracks"][0]["lines"][0] == {"pitch": 36, "name": "kick"}
    assert [track["program"] for track in trio["tracks"]] == [0, 33, None]
    changing = [a["name"] for a in melody["attributes"] if a["can_change"]]
    assert changing == ["c_diatonic", "note_density"]
    assert [model["prior"] for model in found] == ["standard", "fitted", "standard"]
    assert set(StudioModel.can) <= set(ACTIONS)


@each_model
def test_examples_are_rows(name: str) -> None:
    reply = get(f"/api/examples?model={name}").json()["examples"]
    assert len(reply) >= 5
    again = post("rows", model=name, rows=[example["row"] for example in reply])["rows"]
    assert again == [example["row"] for example in reply]
    assert all(len(example["row"]["notes"]) >= 6 for example in reply)


@each_model
def test_rows_have_notes_and_attributes(name: str) -> None:
    tokens = given_rows(name, 3)
    same(post("rows", model=name, rows=sent(tokens))["rows"], tokens, models()[name])


def test_a_short_row_is_padded() -> None:
    made = post("rows", model="mel_2bar", rows=[{"tokens": [2]}])["rows"][0]
    assert made["tokens"] == [2] + [0] * 31
    assert made["notes"] == [{"track": 0, "pitch": 21, "start": 0, "end": 32}]


@pytest.mark.parametrize(
    ("name", "temperature"), [("mel_2bar", 0), ("mel_2bar", 0.7), ("trio_16bar", 0)]
)
def test_samples_are_those_of_the_library(name: str, temperature: float) -> None:
    made = post("sample", model=name, num=4, temperature=temperature, seed=3)["rows"]
    same(made, models()[name].vae.sample(4, 3, temperature), models()[name])


def test_samples_come_from_the_fitted_prior() -> None:
    model = models()["drums_2bar"]
    made = post("sample", model=model.name, num=4, temperature=0, seed=3)["rows"]
    z_key, token_key = jax.random.split(jax.random.key(3))
    assert model.vae.prior is not None
    z = np.asarray(fitted_prior.sample(model.vae.prior, z_key, 16))[:4]
    same(made, model.vae.decode(z, token_key), model)
    np.testing.assert_allclose(rows.z_from_text("z", made[0]["z"], 4), z[0], atol=1e-5)


@each_model
def test_reconstructions_are_those_of_the_library(name: str) -> None:
    tokens, model = given_rows(name, 4), models()[name]
    made = post("reconstruct", model=name, rows=sent(tokens), temperature=0, seed=0)["rows"]
    same(made, model.vae.reconstruct(tokens), model)
    z = np.stack([rows.z_from_text("z", row["z"], 4) for row in made])
    np.testing.assert_allclose(z, model.vae.encode(tokens).mu, atol=1e-5)
    # A reply can be sent back, and starts from z.
    again = post("reconstruct", model=name, rows=made, temperature=0, seed=0)["rows"]
    assert again == made


def test_a_short_row_is_encoded_without_its_padding() -> None:
    model, tokens = models()["mel_2bar"], given_rows("mel_2bar", 1)[0][:16]
    made = post("reconstruct", model=model.name, rows=sent(tokens[None]), temperature=0, seed=0)[
        "rows"
    ]
    same(made, model.vae.reconstruct([tokens]), model)


@pytest.mark.parametrize(("num_rows", "num_columns"), [(2, 2), (3, 5), (9, 9), (11, 11)])
def test_a_palette_is_the_grid_of_the_library(num_rows: int, num_columns: int) -> None:
    tokens, model = given_rows("drums_2bar", 4), models()["drums_2bar"]
    settings = {"rows": num_rows, "columns": num_columns, "temperature": 0, "seed": 0}
    cells = post("palette", model=model.name, corners=sent(tokens), **settings)["cells"]
    expected = model.vae.grid(tokens, num_rows, num_columns)
    assert len(cells) == num_rows
    for made, row in zip(cells, expected, strict=True):
        same(made, row, model)


def test_a_palette_of_two_corners_is_an_interpolation() -> None:
    tokens, model = given_rows("drums_2bar", 2), models()["drums_2bar"]
    settings = {"rows": 1, "columns": 7, "temperature": 0, "seed": 0}
    (made,) = post("palette", model=model.name, corners=sent(tokens), **settings)["cells"]
    same(made, model.vae.interpolate(tokens[0], tokens[1], 7), model)


def test_a_shape_adds_attribute_vectors() -> None:
    tokens, model = given_rows("mel_2bar", 1), models()["mel_2bar"]
    settings = {"similar": 0, "temperature": 0, "seed": 0}
    one = post(
        "shape", model=model.name, row=sent(tokens)[0], attributes={"note_density": 1.5}, **settings
    )
    vector = model.vae.attributes["note_density"]
    same([one["original"]], tokens, model)
    same([one["result"]], model.vae.attribute(tokens, vector, [1.5])[:, 0], model)
    amounts = {"note_density": -1, "c_diatonic": 0.5}
    two = post("shape", model=model.name, row=sent(tokens)[0], attributes=amounts, **settings)
    z = model.vae.encode(tokens).mu - vector + np.float32(0.5) * model.vae.attributes["c_diatonic"]
    same([two["result"]], model.vae.decode(np.asarray(z)), model)


def test_a_shape_of_nothing_is_the_reconstruction() -> None:
    tokens, model = given_rows("drums_2bar", 1), models()["drums_2bar"]
    settings = {"similar": 0, "temperature": 0, "seed": 0}
    made = post("shape", model=model.name, row=sent(tokens)[0], attributes={}, **settings)
    same([made["result"]], model.vae.reconstruct(tokens), model)
    # Of z alone the original is what z decodes to.
    again = post(
        "shape", model=model.name, row={"z": made["result"]["z"]}, attributes={}, **settings
    )
    assert again["original"]["tokens"] == made["result"]["tokens"]


@pytest.mark.parametrize("amount", [0.0, 0.4, 1.0])
def test_variations_are_those_of_the_library(amount: float) -> None:
    tokens, model = given_rows("mel_2bar", 1), models()["mel_2bar"]
    settings = {"amount": amount, "num": 4, "temperature": 0, "seed": 5}
    made = post("variations", model=model.name, row=sent(tokens)[0], **settings)["rows"]
    same(made, model.vae.similar(tokens, amount, 4, 5)[0], model)
    if amount:
        shaped = {"attributes": {}, "similar": amount, "temperature": 0, "seed": 5}
        one = post("shape", model=model.name, row=sent(tokens)[0], **shaped)["result"]
        same([one], model.vae.similar(tokens, amount, 1, 5)[0], model)


def test_variations_go_towards_the_fitted_prior() -> None:
    tokens, model = given_rows("drums_2bar", 1), models()["drums_2bar"]
    settings = {"amount": 1.0, "num": 2, "temperature": 0, "seed": 5}
    made = post("variations", model=model.name, row=sent(tokens)[0], **settings)["rows"]
    drawn = model.draw(jax.random.split(jax.random.key(5))[0], 2)
    z = np.stack([rows.z_from_text("z", row["z"], 4) for row in made])
    np.testing.assert_allclose(z, drawn, atol=1e-5)


@pytest.mark.parametrize(("bars", "windows"), [(16, 8), (3, 8), (20, 16)])
def test_continuations_are_those_of_the_library(bars: int, windows: int) -> None:
    tokens, model = given_rows("mel_2bar", 1), models()["mel_2bar"]
    settings = {"bars": bars, "drift": 0.3, "num": 4, "temperature": 0, "seed": 2}
    made = post("continue", model=model.name, row=sent(tokens)[0], **settings)["rows"]
    pieces = model.vae.continuation(tokens.repeat(4, axis=0), windows, 2, 0.3)
    same(made, pieces[:, : bars * 16], model)


def test_a_grid_at_even_fractions_is_a_grid(key: jax.Array) -> None:
    corners = jax.random.normal(key, (4, 6))
    at = paths.grid_at(corners, jnp.linspace(0, 1, 5), jnp.linspace(0, 1, 3))
    np.testing.assert_allclose(at, paths.grid(corners, 3, 5), atol=1e-6)


def test_a_map_has_the_plane_and_the_neighbours() -> None:
    tokens, model = given_rows("mel_2bar", 20), models()["mel_2bar"]
    tokens[7] = tokens[3]
    made = post("map", model=model.name, rows=tokens.tolist())
    z = np.asarray(model.vae.encode(tokens).mu, np.float64)
    apart = np.linalg.norm(z[:, None] - z[None], axis=2)
    np.fill_diagonal(apart, np.inf)
    np.testing.assert_allclose(made["distances"], np.sort(apart, axis=1)[:, :5], atol=1e-3)
    assert made["neighbours"][7][0] == 3
    # The plane keeps the two directions in which the points differ most.
    lengths = np.linalg.svd(z - z.mean(axis=0), compute_uv=False)
    plane = np.stack([made["x"], made["y"]], axis=1)
    np.testing.assert_allclose(np.linalg.norm(plane, axis=0), lengths[:2], rtol=1e-3)
    density = attributes.measure(tokens, model.task)["note_density"]
    assert made["attributes"]["note_density"] == pytest.approx(density.tolist(), abs=1e-4)
    assert made["spread"]["note_density"] == pytest.approx(density.std(), abs=1e-4)


def test_a_map_of_equal_rows_is_a_point() -> None:
    tokens = given_rows("drums_2bar", 1).repeat(4, axis=0)
    made = post("map", model="drums_2bar", rows=tokens.tolist())
    assert made["x"] == made["y"] == [0.0] * 4
    assert made["distances"] == [[0.0] * 3] * 4


@pytest.mark.parametrize("name", ["mel_2bar", "drums_2bar"])
def test_a_midi_file_gives_the_tokens_that_were_shown(name: str) -> None:
    made = post("sample", model=name, num=2, temperature=1, seed=1)["rows"]
    for row in made:
        content = download("midi", model=name, rows=[row], tempo=100)
        assert row["tokens"] in extract_rows(content, name).tolist()
    task = get_task(name)
    pieces = [np.array(row["tokens"], np.int32) for row in made]
    both = download("midi", model=name, rows=made, tempo=90, program=5)
    assert both == midi_bytes(concatenate(pieces, task.name, rest_bars=0, qpm=90.0, program=5))


def test_a_loop_is_as_long_as_its_bars() -> None:
    row = given_rows("drums_2bar", 1)[0].tolist()
    content = download("wav", model="drums_2bar", rows=[row, row], tempo=120, loop=True)
    with wave.open(io.BytesIO(content)) as file:
        assert file.getnframes() == 44_100 * 8  # four bars of two seconds
    tail = download("wav", model="drums_2bar", rows=[row], tempo=120, loop=False)
    with wave.open(io.BytesIO(tail)) as file:
        assert file.getnframes() == 44_100 * 5


def test_a_zip_has_a_midi_file_for_each_row() -> None:
    made = post("sample", model="mel_2bar", num=3, temperature=1, seed=1)["rows"]
    names = ["one", "../two", "3"]
    content = download("zip", model="mel_2bar", rows=made, tempo=120, names=names)
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        assert file.namelist() == ["one.mid", "___two.mid", "3.mid"]
        for name, row in zip(file.namelist(), made, strict=True):
            assert file.read(name) == download("midi", model="mel_2bar", rows=[row], tempo=120)


def test_a_score_is_musicxml() -> None:
    row = given_rows("trio_16bar", 1)[0].tolist()
    content = download("musicxml", model="trio_16bar", rows=[row], tempo=120)
    assert content.count(b"<score-part ") == 3
    assert set(DOWNLOADS) == {"midi", "wav", "musicxml", "zip"}


def test_note_offs_in_silence_are_removed() -> None:
    task = get_task("mel_2bar")
    row = np.array([[1, 0, 30, 0, 1, 1, 0, 1, 31, 32, 1]])
    assert rows.tidy(row, task).tolist() == [[0, 0, 30, 0, 1, 0, 0, 0, 31, 32, 1]]
    drums = np.array([[1, 1, 0, 1]])
    assert rows.tidy(drums, get_task("drums_2bar")).tolist() == drums.tolist()
    trio = np.stack([row, row, row], axis=-1)
    tidied = rows.tidy(trio, get_task("trio_16bar"))
    assert tidied[..., 1].tolist() == rows.tidy(row, task).tolist()
    assert tidied[..., 2].tolist() == row.tolist()
