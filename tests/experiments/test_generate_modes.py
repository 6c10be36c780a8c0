"""Every mode of experiments.generate that starts from pieces: identities, files, refusals."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from data_pipeline.reading import notes
from data_pipeline.render import files
from experiments import generate
from experiments.generate import Options
from experiments.generation.files import write
from experiments.generation.modes import Music, make
from musicvae_jax.config import InputError
from musicvae_jax.latent import attributes
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.models.registry import build_model
from musicvae_jax.storage.checkpoints import Checkpoints
from musicvae_jax.tasks import TASKS
from tests.support.synthetic_store import write_store

TASK = TASKS["mel_2bar"]
VECTOR = np.array([1.0, -2.0, 0.5, 3.0], np.float32)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run folder with one checkpoint of a tiny untrained model, and a vector."""
    folder = tmp_path_factory.mktemp("run")
    sizes = {"z_size": 4, "encoder_sizes": (8,), "decoder_sizes": (8,)}
    config = TASK.config.replace(**sizes, init="default")
    params = jax.jit(build_model(config).init)(jax.random.key(0))
    # So large that tokens depend on z.
    params = jax.tree.map(lambda leaf: 3.0 * leaf, params)
    with Checkpoints(folder, create=True) as checkpoints:
        checkpoints.save(1, params, {"count": np.zeros(1)}, config)
    about = {"missing": {"c_diatonic": "all rows have the same value"}}
    found = attributes.Vectors("mel_2bar", 1, {"note_density": VECTOR}, about)
    attributes.save_vectors(folder, found)
    return str(folder)


@pytest.fixture(scope="module")
def vae(run_dir: str) -> MusicVAE:
    return MusicVAE.restore(run_dir)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with 24 test rows."""
    return str(write_store(tmp_path_factory.mktemp("data") / "tokens", "mel_2bar"))


@pytest.fixture(scope="module")
def rows(store: str) -> np.ndarray:
    return np.load(pathlib.Path(store) / "test.npy")[[3, 5, 8, 13]]


@pytest.fixture(scope="module")
def again(vae: MusicVAE, rows: np.ndarray) -> np.ndarray:
    """The reconstructions of the four rows."""
    return vae.reconstruct(rows)


def options(mode: str, num_inputs: int = 4, output: Any = "music", **given: Any) -> Options:
    inputs = tuple(f"{number}.mid" for number in range(num_inputs))
    return Options(run_dir="run", output=str(output), mode=mode, **({"inputs": inputs} | given))


@pytest.mark.parametrize("path", ["slerp", "linear"])
def test_the_corners_of_a_grid_are_the_reconstructions(
    vae: MusicVAE, rows: np.ndarray, again: np.ndarray, path: str
) -> None:
    music = make(vae, options("grid", rows=3, columns=4, path=path), rows)
    assert (music.columns, len(music.tokens)) == (4, 12)
    np.testing.assert_array_equal(music.tokens[[0, 3, 8, 11]], again)
    assert (music.titles[3], music.names[3]) == ("row 1, column 4", "grid_01_04")
    assert len({z.tobytes() for z in music.z}) == 12


@pytest.mark.parametrize("path", ["slerp", "linear"])
def test_the_ends_of_an_interpolation_are_the_reconstructions(
    vae: MusicVAE, rows: np.ndarray, again: np.ndarray, path: str
) -> None:
    music = make(vae, options("interpolate", 2, steps=4, path=path), rows[:2])
    np.testing.assert_array_equal(music.tokens[[0, 3]], again[:2])


def test_nothing_similar_is_the_reconstruction(
    vae: MusicVAE, rows: np.ndarray, again: np.ndarray
) -> None:
    asked = options("similar", 2, num=2, amounts=(0.0, 1.0))
    music = make(vae, asked, rows[:2])
    assert music.names[:3] == ["similar_1_0_1", "similar_1_0_2", "similar_1_1_1"]
    assert music.titles[5] == "input 2, amount 0, variation 2"
    np.testing.assert_array_equal(music.tokens[[0, 1, 4, 5]], again[[0, 0, 1, 1]])
    # At 1, nothing of the input is left.
    other = make(vae, asked, rows[2:])
    np.testing.assert_array_equal(other.z[[2, 3, 6, 7]], music.z[[2, 3, 6, 7]])
    assert len({z.tobytes() for z in music.z[[2, 3, 6, 7]]}) == 4


def test_an_attribute_by_nothing_changes_nothing(
    vae: MusicVAE, rows: np.ndarray, again: np.ndarray
) -> None:
    asked = options("attribute", 1, attribute="note_density")
    music = make(vae, asked, rows[:1], VECTOR)
    assert music.titles[0] == "note_density -1.5"
    assert len(music.tokens) == 7
    np.testing.assert_array_equal(music.tokens[3], again[0])
    mu = np.asarray(vae.encode(rows[:1]).mu)
    np.testing.assert_allclose(music.z[[0, 6]], mu + np.array([[-1.5], [1.5]]) * VECTOR, rtol=1e-5)


def test_a_continuation_goes_on_from_its_input(
    vae: MusicVAE, rows: np.ndarray, again: np.ndarray
) -> None:
    music = make(vae, options("continue", 2, bars=3, drift=0.0, temperature=0.0), rows[:2])
    assert music.pieces is not None
    assert (music.tokens.shape, music.pieces.shape) == ((2, 48), (2, 80))
    np.testing.assert_array_equal(music.pieces[:, :32], rows[:2])
    # Only a note off may be put where windows meet.
    steps = np.arange(48)
    steps = steps[(steps % 32) > 0]
    twice = np.concatenate([again[:2], vae.reconstruct(again[:2])], axis=1)
    np.testing.assert_array_equal(music.tokens[:, steps], twice[:, steps])
    drifting = make(vae, options("continue", 2, bars=3, drift=0.9, temperature=0.0), rows[:2])
    assert (drifting.tokens != music.tokens).any()


def test_a_long_piece_walks_through_its_inputs(
    vae: MusicVAE, rows: np.ndarray, again: np.ndarray
) -> None:
    music = make(vae, options("long", 3, windows=5, temperature=0.0), rows[:3])
    assert music.pieces is not None
    assert music.pieces.shape == (1, 160)
    np.testing.assert_array_equal(music.tokens[[0, 2, 4]], again[:3])


def test_a_long_piece_without_inputs_walks_through_the_prior(vae: MusicVAE) -> None:
    music = make(vae, options("long", 0, windows=7, waypoints=4), None)
    assert (music.tokens.shape, music.z.shape) == ((7, 32), (7, 4))
    other = make(vae, options("long", 0, windows=7, waypoints=4, seed=1), None)
    assert (other.z != music.z).any(axis=1).all()


MODES: dict[str, dict[str, Any]] = {
    "grid": {"num_inputs": 4, "rows": 2, "columns": 2},
    "similar": {"num_inputs": 1, "num": 2},
    "attribute": {"num_inputs": 1, "attribute": "note_density", "amounts": (-1.0, 1.0)},
    "continue": {"num_inputs": 1, "bars": 3},
    "long": {"num_inputs": 2, "windows": 3},
}


def made(vae: MusicVAE, rows: np.ndarray, mode: str, folder: pathlib.Path) -> list[pathlib.Path]:
    asked = options(mode, output=folder, temperature=1.0, **MODES[mode])
    music: Music = make(vae, asked, rows[: MODES[mode]["num_inputs"]], VECTOR)
    return write(music, TASK, asked)


@pytest.mark.parametrize("mode", MODES)
def test_one_seed_gives_the_same_files(
    vae: MusicVAE, rows: np.ndarray, mode: str, tmp_path: pathlib.Path
) -> None:
    first = made(vae, rows, mode, tmp_path / "a")
    second = made(vae, rows, mode, tmp_path / "b")
    assert [path.name for path in first] == [path.name for path in second]
    assert {path.suffix for path in first} == {".mid", ".npz", ".png"}
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("mode", ["similar", "attribute"])
def test_the_picture_has_each_input_before_what_is_made_of_it(
    vae: MusicVAE,
    rows: np.ndarray,
    mode: str,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[tuple[np.ndarray, list[str]]] = []

    def draw(path: pathlib.Path, rows: np.ndarray, task: str, titles: list[str], **_: Any) -> None:
        drawn.append((rows, titles))

    monkeypatch.setattr(files, "piano_roll_png", draw)
    asked = options(mode, output=tmp_path, **(MODES[mode] | {"num_inputs": 2}))
    music = make(vae, asked, rows[:2], VECTOR)
    write(music, TASK, asked)
    ((pictured, titles),) = drawn
    np.testing.assert_array_equal(pictured[[0, 3]], rows[:2])
    np.testing.assert_array_equal(pictured[[1, 2, 4, 5]], music.tokens)
    assert titles == ["input 1", *music.titles[:2], "input 2", *music.titles[2:]]


def test_a_continuation_is_one_file_with_its_input(
    vae: MusicVAE, rows: np.ndarray, tmp_path: pathlib.Path
) -> None:
    asked = options("continue", 1, tmp_path, bars=3, formats=("midi", "musicxml"), temperature=1.0)
    music = make(vae, asked, rows[:1])
    written = write(music, TASK, asked)
    assert [path.name for path in written] == [
        "continue_1.mid",
        "continue_1.musicxml",
        written[2].name,
    ]
    (unit,) = notes.read_units(written[0].name, written[0].read_bytes())
    assert unit.sequence is not None
    assert music.pieces is not None
    starts = [round(note.start_time * 8) for note in unit.sequence.notes]
    assert starts == np.flatnonzero(music.pieces[0] > 1).tolist()
    assert written[1].read_text().count("<measure") == 5


def test_a_row_of_a_store_is_an_input(store: str) -> None:
    asked = options("interpolate", inputs=(f"{store}:test:17", f"{store}:train:0"))
    found, origins, _ = generate.read_inputs(asked, TASK)
    assert origins == [f"{store}: test row 17", f"{store}: train row 0"]
    np.testing.assert_array_equal(found[0], np.load(pathlib.Path(store) / "test.npy")[17])
    np.testing.assert_array_equal(found[1], np.load(pathlib.Path(store) / "train.npy")[0])


def test_the_end_of_a_file_is_continued_and_a_short_end_is_padded(tmp_path: pathlib.Path) -> None:
    row = np.zeros(80, np.uint8)
    row[::4] = np.arange(30, 50)
    files.write_midi(tmp_path / "walk.mid", row, "mel_2bar")
    files.write_midi(tmp_path / "short.mid", row[:16], "mel_2bar")
    inputs = (str(tmp_path / "walk.mid"), str(tmp_path / "short.mid"))
    found, origins, _ = generate.read_inputs(options("continue", inputs=inputs), TASK)
    np.testing.assert_array_equal(found[0], row[48:])
    assert "walk.mid: bars 4-5, track 0, 8 of 8 notes kept" in origins[0]
    assert origins[1].endswith("shorter than the window: 1 bar of silence added before it")
    found, origins, _ = generate.read_inputs(options("interpolate", inputs=inputs), TASK)
    np.testing.assert_array_equal(found[0], row[:32])
    assert origins[1].endswith("shorter than the window: 1 bar of silence added after it")


def test_scores_and_tunes_are_inputs(tmp_path: pathlib.Path) -> None:
    row = np.zeros(32, np.uint8)
    row[::4] = 41 + np.array([0, 2, 4, 5, 7, 9, 11, 12])  # C major from C4
    files.write_musicxml(tmp_path / "scale.musicxml", row, "mel_2bar")
    (tmp_path / "scale.abc").write_text("X:1\nM:4/4\nL:1/4\nQ:1/4=120\nK:C\nCDEF|GABc|\n")
    inputs = tuple(str(tmp_path / name) for name in ("scale.musicxml", "scale.abc"))
    found, origins, _ = generate.read_inputs(options("interpolate", inputs=inputs), TASK)
    np.testing.assert_array_equal(found, [row, row])
    assert [line.split(":")[0] for line in origins] == ["scale.musicxml", "scale.abc#1"]


def test_the_whole_command(run_dir: str, store: str, tmp_path: pathlib.Path) -> None:
    asked = Options(
        run_dir=run_dir,
        mode="attribute",
        output=str(tmp_path),
        inputs=(f"{store}:test:3",),
        attribute="note_density",
        amounts=(0.0,),
    )
    written = generate.generate(asked)
    assert [path.name for path in written][-2:] == ["attribute.npz", "attribute.png"]


@pytest.mark.parametrize(
    ("mode", "given", "message"),
    [
        ("grid", {"num_inputs": 3}, "needs four, or one with four --start_bar, 3 given"),
        ("grid", {"rows": 1}, "rows: 1 is out of range"),
        ("similar", {"amounts": (1.5,)}, "amount: 1.5 is out of range, it must be from 0 to 1"),
        ("sample", {"num_inputs": 1}, "--mode=sample needs none, it draws from the prior"),
        ("sample", {"num_inputs": 0, "amounts": (1.0,)}, "amount: not used by --mode=sample"),
        ("continue", {"drift": 2.0}, "drift: 2.0 is out of range"),
        ("continue", {"num_inputs": 0}, "--mode=continue needs --input"),
        ("long", {"windows": 0}, "windows: 0 is out of range"),
        ("attribute", {}, "needs --attribute=NAME"),
        ("similar", {"attribute": "x"}, "attribute: not used by --mode=similar"),
        ("long", {"path": "arc"}, "path: 'arc' is not one of slerp, linear"),
        ("long", {"formats": ("mp3",)}, "format: 'mp3' is not one of midi"),
        ("long", {"data_dir": "tokens"}, "give --input or --data_dir, not both"),
    ],
)
def test_wrong_options_are_refused(mode: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        options(mode, **given)


def test_what_the_model_cannot_do_is_refused(
    run_dir: str, vae: MusicVAE, store: str, tmp_path: pathlib.Path
) -> None:
    for name, message in (
        ("swing", "attribute: mel_2bar has no 'swing'; it has c_diatonic, "),
        ("c_diatonic", "there is no vector of c_diatonic: all rows have the same value"),
        ("average_interval", "there is no vector of average_interval: it was not computed"),
    ):
        wanted = Options(
            run_dir=run_dir, mode="attribute", output="x", inputs=("a",), attribute=name
        )
        with pytest.raises(InputError, match=message):
            generate.read_vector(wanted, vae)
    other = MusicVAE(vae.config, vae.params, step=2)
    with pytest.raises(InputError, match="are of mel_2bar, step 1, the model is of mel_2bar, st"):
        generate.read_vector(wanted, other)
    silent = np.zeros((1, 32), np.uint8)
    folder = write_store(tmp_path / "silent", "mel_2bar", {"train": 1, "validation": 1, "test": 1})
    np.save(folder / "test.npy", silent)
    with pytest.raises(InputError, match=r"input: .*silent: test row 0: there are no notes"):
        generate.read_inputs(
            options("similar", inputs=(f"{folder}:test:0",), allow_changed_data=True), TASK
        )
    with pytest.raises(InputError, match=r"test:24: the split has rows 0 to 23"):
        generate.read_inputs(options("similar", inputs=(f"{store}:test:24",)), TASK)
    empty_split = write_store(
        tmp_path / "empty_split", "mel_2bar", {"train": 1, "validation": 1, "test": 0}
    )
    with pytest.raises(InputError, match=r"test:0: the split has no rows"):
        generate.read_inputs(options("similar", inputs=(f"{empty_split}:test:0",)), TASK)
    with pytest.raises(InputError, match="is a row of a store, which has no bars to choose"):
        generate.read_inputs(options("similar", inputs=(f"{store}:test:2",), start_bars=(2,)), TASK)
    with pytest.raises(InputError, match=r"input: .* holds rows of mel_2bar, the model is of drum"):
        generate.read_inputs(options("similar", inputs=(f"{store}:test:2",)), TASKS["drums_2bar"])
    empty = files.midi_bytes(files.concatenate([silent[0]], "mel_2bar"))
    (tmp_path / "empty.mid").write_bytes(empty)
    with pytest.raises(InputError, match=r"input: .*empty.mid has no row of mel_2bar: no notes"):
        generate.read_inputs(options("similar", inputs=(str(tmp_path / "empty.mid"),)), TASK)
