from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from absl import flags

from data_pipeline import cli
from data_pipeline.codecs import melody
from data_pipeline.reading import notes
from data_pipeline.reading.segments import split_segments
from data_pipeline.render import files as render
from experiments import generate
from experiments.generate import Options
from experiments.generation.files import earlier_files, to_hear
from musicvae_jax.config import InputError
from musicvae_jax.latent.musicvae import MusicVAE
from musicvae_jax.models.registry import build_model
from musicvae_jax.storage.checkpoints import Checkpoints
from musicvae_jax.tasks import TASKS
from tests.support.synthetic_store import write_store

TASK = TASKS["mel_2bar"]
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run folder with one checkpoint of a tiny untrained model."""
    folder = tmp_path_factory.mktemp("run")
    sizes = {"z_size": 4, "encoder_sizes": (8,), "decoder_sizes": (8,)}
    config = TASK.config.replace(**sizes, init="default")
    params = jax.jit(build_model(config).init)(jax.random.key(0))
    with Checkpoints(folder, create=True) as checkpoints:
        checkpoints.save(1, params, {"count": np.zeros(1)}, config)
    return str(folder)


@pytest.fixture(scope="module")
def vae(run_dir: str) -> MusicVAE:
    """The tiny model, compiled once for the tests of this file."""
    return MusicVAE.restore(run_dir)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with 24 test rows."""
    return str(write_store(tmp_path_factory.mktemp("data") / "tokens", "mel_2bar"))


@pytest.fixture
def walk(tmp_path: pathlib.Path) -> str:
    """A MIDI file of 4 bars, each step of 4 bars a higher note than the last."""
    row = np.zeros(64, np.uint8)
    row[::4] = np.arange(30, 46)
    render.write_midi(tmp_path / "walk.mid", row, "mel_2bar")
    return str(tmp_path / "walk.mid")


def options(run_dir: str = "run", output: Any = "music", **given: Any) -> Options:
    return Options(run_dir=run_dir, output=str(output), **({"mode": "sample"} | given))


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def sounding(path: pathlib.Path) -> np.ndarray:
    """The notes of a MIDI file, in steps."""
    (unit,) = notes.read_units(path.name, path.read_bytes())
    assert unit.sequence is not None
    (piece,) = split_segments(notes.notes_from_sequence(unit.sequence))
    return piece.notes


def test_one_seed_gives_the_same_bytes_and_another_does_not(
    vae: MusicVAE, tmp_path: pathlib.Path
) -> None:
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        asked = options(output=tmp_path / folder, num=4, temperature=1.0, seed=seed)
        generate.write(generate.make(vae, asked, None), TASK, asked)
    first, again, other = (files(tmp_path / name) for name in "abc")
    assert first == again
    assert [name for name in first if first[name] == other[name]] == []


def test_samples_are_written_as_midi_arrays_and_a_picture(
    vae: MusicVAE, tmp_path: pathlib.Path
) -> None:
    asked = options(output=tmp_path / "new" / "music", num=4, temperature=1.0)
    written = generate.write(generate.make(vae, asked, None), TASK, asked)
    midi = [f"sample_{number}.mid" for number in (1, 2, 3, 4, "all")]
    assert [path.name for path in written] == [*midi, "sample.npz", "sample.png"]
    arrays = np.load(written[-2])
    assert (arrays["tokens"].shape, arrays["tokens"].dtype) == ((4, 32), np.uint8)
    assert np.array_equal(vae.decode(arrays["z"]).shape, arrays["tokens"].shape)
    for path, row in zip(written, arrays["tokens"], strict=False):
        assert np.array_equal(sounding(path)["pitch"], melody.decode(row)["pitch"])
    assert written[-1].read_bytes().startswith(PNG)


def test_all_samples_are_also_one_file(vae: MusicVAE, tmp_path: pathlib.Path) -> None:
    asked = options(output=tmp_path, num=3, temperature=1.0, formats=("midi",))
    music = generate.make(vae, asked, None)
    written = generate.write(music, TASK, asked)
    steps, pitches = [], []
    for number, row in enumerate(music.tokens):
        notes_of_row = melody.decode(row)
        steps += (notes_of_row["start_step"] + number * 48).tolist()  # a bar of rest between two
        pitches += notes_of_row["pitch"].tolist()
    found = sounding(written[3])
    assert written[3].name == "sample_all.mid"
    assert found["pitch"].tolist() == pitches
    assert (found["start_step"] - found["start_step"][0]).tolist() == [s - steps[0] for s in steps]
    many = to_hear(music._replace(tokens=np.zeros((65, 32)), names=["a"] * 65), "sample")
    assert len(many) == 65


def test_earlier_music_is_replaced_only_when_asked_and_nothing_stale_stays(
    run_dir: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = options(run_dir, tmp_path, num=8, formats=("midi", "musicxml"))
    generate.generate(first)
    mine = [tmp_path / name for name in ("sample_song.mid", "reconstruct_1.mid", "sample_9.txt")]
    for path in mine:
        path.write_text("mine")
    before = files(tmp_path)
    second = dataclasses.replace(first, num=3, formats=("midi",))
    with pytest.raises(InputError, match=r"earlier --mode=sample \(19 files\); give --overwrite"):
        generate.generate(second)
    with pytest.raises(InputError, match="give --overwrite"):
        generate.write(generate.make(MusicVAE.restore(run_dir), second, None), TASK, second)
    assert files(tmp_path) == before
    written = generate.generate(dataclasses.replace(second, overwrite=True))
    assert set(tmp_path.iterdir()) == {*written, *mine}
    assert "replaced 19 files from an earlier --mode=sample" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("reconstruct", ["reconstruct_1.mid", "reconstruct_12_after_input.wav"]),
        ("interpolate", ["interpolate_all.svg", "interpolate_3.mid"]),
        ("grid", ["grid_01_05.mid"]),
        ("similar", ["similar_1_0.3_4.musicxml"]),
        ("attribute", ["attribute_1_note_density_-1.5.mid", "attribute_2_syncopation_16th_+0.mid"]),
        ("long", ["long.mid", "long.png"]),
    ],
)
def test_the_files_of_each_mode_are_recognised(
    mode: str, names: list[str], tmp_path: pathlib.Path
) -> None:
    for name in (*names, f"{mode}s.mid", f"{mode}_mine.mid", "continue_1.mid"):
        (tmp_path / name).touch()
    num_inputs = {"interpolate": 2, "grid": 4}.get(mode, 1)
    given: dict[str, Any] = {"mode": mode, "inputs": ("a.mid",) * num_inputs}
    attribute = "note_density" if mode == "attribute" else None
    asked = options(output=tmp_path, overwrite=True, attribute=attribute, **given)
    assert [path.name for path in earlier_files(asked)] == sorted(names)


def test_a_folder_is_all_its_files_and_those_without_rows_are_named(
    run_dir: str, walk: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "songs"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.mid", "deep/a.MID"):
        (folder / name).write_bytes(pathlib.Path(walk).read_bytes())
    (folder / "damaged.mid").write_bytes(b"no music")
    (folder / "words.txt").write_text("no music")
    asked = options(run_dir, tmp_path / "out", mode="reconstruct", inputs=(str(folder),))
    generate.generate(asked)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"left out: {folder / 'damaged.mid'} cannot be read")
    assert [line.split(":")[0] for line in printed[1:3]] == ["b.mid", "a.MID"]
    assert len(np.load(tmp_path / "out" / "reconstruct.npz")["tokens"]) == 2
    for name in ("b.mid", "deep/a.MID"):
        (folder / name).unlink()
    with pytest.raises(InputError, match=r"no file of .*songs has mel_2bar rows"):
        generate.generate(dataclasses.replace(asked, overwrite=True))
    (folder / "damaged.mid").unlink()
    with pytest.raises(InputError, match=r"songs holds no MIDI, MusicXML or ABC files$"):
        dataclasses.replace(asked)


def test_a_store_given_as_an_input_is_recognised(store: str) -> None:
    with pytest.raises(InputError, match=r"it is a token store: --data_dir=\S+ or --input=\S+:0"):
        options(mode="reconstruct", inputs=(store,))


def test_greedy_samples_are_the_decoded_z(vae: MusicVAE) -> None:
    music = generate.make(vae, options(num=4, temperature=0.0), None)
    assert np.array_equal(music.tokens, vae.decode(music.z))


def tempo_of(path: pathlib.Path) -> float:
    """The tempo of a MIDI file, quarter notes per minute."""
    (unit,) = notes.read_units(path.name, path.read_bytes())
    assert unit.sequence is not None
    return unit.sequence.tempos[0].qpm


def test_the_tempo_of_the_input_is_kept(
    run_dir: str, walk: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = np.zeros(32, np.uint8)
    row[::4] = np.arange(30, 38)
    render.write_midi(tmp_path / "slow.mid", row, "mel_2bar", qpm=75.0)
    inputs = (str(tmp_path / "slow.mid"), walk)
    asked = options(run_dir, tmp_path / "a", mode="reconstruct", inputs=inputs, formats=("midi",))
    written = generate.generate(asked)
    assert tempo_of(written[0]) == pytest.approx(75.0, abs=0.01)
    assert "tempo: 75 quarter notes per minute, as in the first input\n" in capsys.readouterr().out
    written = generate.generate(dataclasses.replace(asked, output=str(tmp_path / "b"), qpm=90.0))
    assert tempo_of(written[0]) == pytest.approx(90.0, abs=0.01)
    assert "tempo: " not in capsys.readouterr().out
    sample = options(run_dir, tmp_path / "c", num=1, formats=("midi",))
    assert tempo_of(generate.generate(sample)[0]) == pytest.approx(120.0)


@pytest.mark.parametrize(("mode", "expected"), [("sample", 0.5), ("long", 0.5), ("similar", 0.0)])
def test_each_mode_has_its_own_temperature(mode: str, expected: float) -> None:
    inputs = () if mode == "sample" else ("a.mid",)
    assert options(mode=mode, inputs=inputs).sampling_temperature == expected
    assert options(mode=mode, inputs=inputs, temperature=0.7).sampling_temperature == 0.7


def test_formats_are_separated_by_commas_or_repeated() -> None:
    values = flags.FlagValues()
    cli.define_flags(Options, values)
    arguments = ["--run_dir=r", "--mode=sample", "--output=o", "--format=midi,wav", "--format=svg"]
    values(["generate", *arguments])
    assert cli.options_from_flags(Options, values).formats == ("midi", "wav", "svg")


def test_a_missing_mode_is_answered_with_all_modes() -> None:
    values = flags.FlagValues()
    cli.define_flags(Options, values)
    values(["generate", "--run_dir=r", "--output=o"])
    with pytest.raises(InputError, match="mode: --mode is needed, one of sample, reconstruct"):
        cli.options_from_flags(Options, values)


def test_a_reconstruction_follows_its_input(
    vae: MusicVAE, walk: str, tmp_path: pathlib.Path
) -> None:
    asked = options(output=tmp_path / "out", mode="reconstruct", inputs=(walk,), start_bars=(2,))
    rows, origins, _ = generate.read_inputs(asked, TASK)
    assert origins == ["walk.mid: bars 2-3, track 0, 8 of 8 notes kept"]
    written = generate.write(generate.make(vae, asked, rows), TASK, asked)
    names = [path.name for path in written]
    assert names[:2] == ["reconstruct_1.mid", "reconstruct_1_after_input.mid"]
    arrays = np.load(tmp_path / "out" / "reconstruct.npz")
    assert arrays["inputs"][0, ::4].tolist() == list(range(34, 42))
    assert np.array_equal(arrays["tokens"], vae.reconstruct(rows))
    both = sounding(written[1])
    before = both["start_step"] < 32
    assert both["pitch"][before].tolist() == list(range(53, 61))
    # One bar of rest lies between the two.
    out = melody.decode(arrays["tokens"][0])
    assert np.array_equal(both["start_step"][~before] - 48, out["start_step"])


def test_an_interpolation_goes_from_one_reconstruction_to_the_other(
    vae: MusicVAE, store: str
) -> None:
    asked = options(mode="interpolate", data_dir=store, steps=5)
    rows, origins, _ = generate.read_inputs(asked, TASK)
    music = generate.make(vae, asked, rows)
    ends = vae.encode(rows).mu
    np.testing.assert_allclose(music.z[[0, -1]], ends, atol=1e-5)
    assert np.array_equal(music.tokens, vae.interpolate(rows[0], rows[1], 5))
    assert music.titles[2] == "50% of the way"
    assert [line.split()[:2] for line in origins] == [["test", "row"]] * 2


def test_one_file_with_two_bars_is_both_ends(walk: str) -> None:
    asked = options(mode="interpolate", inputs=(walk,), start_bars=(1, 3))
    rows, _, _ = generate.read_inputs(asked, TASK)
    assert rows[:, 0].tolist() == [30, 38]


def test_rows_of_the_store_are_drawn_by_the_seed(store: str) -> None:
    test_rows = np.load(pathlib.Path(store) / "test.npy")
    drawn = [
        generate.read_inputs(options(mode="reconstruct", data_dir=store, num=6, seed=seed), TASK)
        for seed in (0, 0, 1)
    ]
    assert drawn[0][1] == drawn[1][1] != drawn[2][1]
    assert len(set(drawn[0][1])) == 6
    numbers = [int(line.removeprefix("test row ")) for line in drawn[0][1]]
    assert np.array_equal(drawn[0][0], test_rows[numbers])


def test_tempo_and_program_are_heard(vae: MusicVAE, walk: str, tmp_path: pathlib.Path) -> None:
    asked = options(output=tmp_path, mode="reconstruct", inputs=(walk,), qpm=60.0, program=73)
    rows, _, _ = generate.read_inputs(asked, TASK)
    generate.write(generate.make(vae, asked, rows), TASK, asked)
    path = tmp_path / "reconstruct_1_after_input.mid"
    (unit,) = notes.read_units(path.name, path.read_bytes())
    assert unit.sequence is not None
    first = unit.sequence.notes[0]
    assert (first.end_time, first.program) == (pytest.approx(1.0, abs=1e-3), 73)


def test_arrays_are_written_before_music_and_pictures(
    vae: MusicVAE, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = options(output=tmp_path, num=4)

    def full_disk(*given: Any, **more: Any) -> None:
        raise OSError("no space left")

    for name in ("write_midi", "piano_roll_png"):
        with monkeypatch.context() as patch:
            patch.setattr(render, name, full_disk)
            with pytest.raises(OSError, match="no space left"):
                generate.write(generate.make(vae, asked, None), TASK, asked)
        with np.load(tmp_path / "sample.npz") as arrays:
            assert arrays["tokens"].shape == (4, *TASK.row_shape)
        (tmp_path / "sample.npz").unlink()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mode": "dream"}, "mode: 'dream' is not one of sample"),
        ({"num": 0}, "num: 0 is out of range"),
        ({"steps": 1}, "steps: 1 is out of range"),
        ({"temperature": -0.1}, "temperature: -0.1 is out of range"),
        ({"seed": -1}, "seed: -1 is out of range"),
        ({"split": "all"}, "split: 'all' is not one of train"),
        ({"qpm": 0.0}, "qpm: 0.0 is out of range"),
        ({"program": 128}, "program: 128 is out of range"),
        ({"mode": "reconstruct", "inputs": ("a",), "start_bars": (0,)}, "start_bar: 0 is out"),
        ({"mode": "reconstruct", "inputs": ("a",), "start_bars": (1, 2)}, "2 times for 1 inputs"),
        ({"mode": "reconstruct"}, "--mode=reconstruct needs --input files or a --data_dir"),
        ({"mode": "interpolate", "inputs": ("a", "b", "c")}, "needs two, or one .* 3 given"),
        ({"mode": "interpolate", "inputs": ("a",)}, "needs two, or one with two --start_bar, 1"),
    ],
)
def test_wrong_options_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        options(**given)


def test_what_does_not_fit_the_model_is_refused(
    run_dir: str, store: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(InputError, match="holds rows of mel_2bar, the model is of drums_2bar"):
        generate.read_inputs(options(mode="reconstruct", data_dir=store), TASKS["drums_2bar"])
    with pytest.raises(InputError, match="num: 25 rows requested, but split test has 24"):
        generate.read_inputs(options(mode="reconstruct", data_dir=store, num=25), TASK)
    with pytest.raises(InputError, match="holds no checkpoints; train first"):
        generate.generate(options(str(tmp_path), tmp_path / "music"))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"output: .*file is a file, it must be a folder"):
        generate.generate(options(run_dir, tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"
