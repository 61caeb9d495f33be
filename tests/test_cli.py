"""The command as a user meets it: results on stdout, one line on stderr for an error, and its exit code."""

from __future__ import annotations

import itertools
import json
import os
import pkgutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.toys import HEIGHT, NOT_TEXT, WIDTH, save_mask, scene, takes_any_name
from vcorr import cli, rng
from vcorr.model import resnet
from vcorr.model.weights import Weights, load_weights, save_weights
from vcorr.training.recipe import Inference, Matching


def run(*args: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["vcorr", *map(str, args)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


@pytest.fixture
def vcorr(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    return lambda *args: run(*args, capsys=capsys, monkeypatch=monkeypatch)


def test_version(vcorr) -> None:
    code, out, _ = vcorr("--version")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["vcorr", "torch", "triton", "python", "device"]


def test_help_costs_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['vcorr', '--help']\nfrom vcorr import cli\n"
        "try: cli.main()\nexcept SystemExit: pass\nprint('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "False"


def test_propagate(vcorr, frames: Path, mask: Path, weights: Path) -> None:
    code, out, err = vcorr("propagate", frames, mask, "--out", "o", "--weights", weights, "--device", "cpu")
    assert code == 0
    assert "8 masks in o/masks" in out
    assert "8 frames of 64x48" in err
    code, out, _ = vcorr("propagate", frames, mask, "--out", "o", "--weights", weights, "--device", "cpu", "--json")
    assert code == 0
    assert json.loads(out)["frames"] == 8


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(vcorr, frames: Path, mask: Path, weights: Path) -> None:
    before = sorted(Path.cwd().rglob("*"))
    common = ("propagate", frames, mask, "--out", "o", "--weights", weights, "--device", "cpu", "--dry-run")
    code, out, err = vcorr(*common)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["frames", "size", "time", "memory", "disk"]
    assert "8, 0 of them labelled already" in out and "64x48, read at 64x48; 2 objects" in out
    assert "mask.png labels frame 0" in err
    code, out, _ = vcorr(*common, "--json")
    found = json.loads(out)
    assert code == 0 and found["frames"] == found["left"] == 8 and found["seconds"] > 0 and found["free"] > 0
    assert sorted(Path.cwd().rglob("*")) == before


def test_the_weights_that_come_with_vcorr_may_be_named(vcorr, frames: Path, mask: Path) -> None:
    common = ("propagate", frames, mask, "--out", "o", "--device", "cpu", "--dry-run", "--json")
    documents = [json.loads(vcorr(*common, *named)[1]) for named in ((), ("--weights", "default"))]
    assert documents[0]["frames"] == documents[1]["frames"] == 8
    assert vcorr(*common, "--weights", "defaults")[0] == 3


@pytest.mark.slow
def test_corrections(vcorr, frames: Path, mask: Path, weights: Path, tmp_path: Path) -> None:
    later = save_mask(tmp_path / "later.png", scene(4)[1])
    common = ("propagate", frames, mask, "--weights", weights, "--device", "cpu")
    code, _, _ = vcorr(*common, "--out", "o", "--at", f"4={later}")
    assert code == 0
    np.testing.assert_array_equal(np.asarray(Image.open("o/masks/00004.png")), scene(4)[1])
    for more, words in [
        (("--at", f"0={later}"), "labelled by"),
        (("--at", f"8={later}"), "frames 0 to 7 are labelled"),
        (("--at", f"6={later}", "--end", 6), "frames 0 to 5 are labelled"),
        (("--at", f"4={later}", "--at", f"04={mask}"), f"frame 4 is labelled by {later} already"),
        *((("--at", at), "is not K=FILE") for at in ("4", "4=", f"²={later}", f"-1={later}", f"{'9' * 5000}={later}")),
    ]:
        code, _, err = vcorr(*common, "--out", "o2", *more)
        assert (code, words in err) == (2, True), err
    assert not Path("o2").exists()


def labelled_set(root: Path, name: str, mask: Callable[[Path, np.ndarray], object]) -> Path:
    """A data set in DAVIS's layout: one sequence of 12 frames of the scene, their files named by a format."""
    images, truth = root / "JPEGImages/480p/scene", root / "Annotations/480p/scene"
    images.mkdir(parents=True)
    truth.mkdir(parents=True)
    for step in range(12):
        picture, ids = scene(step)
        Image.fromarray(picture).save(images / f"{step:{name}}.png")
        mask(truth / f"{step:{name}}.png", ids)
    return root


@pytest.fixture
def sharp(tmp_path: Path) -> Path:
    """A tiny encoder, untrained, read sharply enough to carry a label."""
    net = resnet.ResNetConfig(widths=(8, 8, 8, 8), features=8)
    params, stats = resnet.init(net, rng.generator(0, "init"))
    path = tmp_path / "sharp.safetensors"
    save_weights(path, Weights(params, stats, net, Matching(radius=2, scale=300.0), Inference(), {}))
    return path


def test_one_order_of_frames_whatever_their_names(vcorr, sharp: Path, tmp_path: Path) -> None:
    said = set()
    for name in ("d", "05d"):
        root = labelled_set(tmp_path / name, name, save_mask)
        code, out, err = vcorr("evaluate", "davis", "--root", root, "--weights", sharp, "--workers", 1, "--json")
        assert code == 0, err
        said.add(out)
    assert len(said) == 1


def test_one_reading_of_a_mask(vcorr, sharp: Path, tmp_path: Path) -> None:
    """An id is the number in the file, also where grey of two values would be object 1 of a mask that was painted."""
    said = []
    for k in (1, 2):
        root = labelled_set(
            tmp_path / str(k), "05d", lambda path, ids, k=k: Image.fromarray((ids == 1) * np.uint8(k)).save(path)
        )
        code, out, err = vcorr("evaluate", "davis", "--root", root, "--weights", sharp, "--workers", 1, "--json")
        assert code == 0, err
        said.append(json.loads(out)["sequences"][0]["objects"][-1])
    assert said[0].pop("id") == 1 and said[1].pop("id") == 2
    assert said[0] == said[1] and said[0]["j_and_f"] > 0.05


def test_evaluate_davis(vcorr, frames: Path, weights: Path, tmp_path: Path) -> None:
    images, truth = tmp_path / "davis/JPEGImages/480p/scene", tmp_path / "davis/Annotations/480p/scene"
    images.parent.mkdir(parents=True)
    frames.rename(images)
    truth.mkdir(parents=True)
    for step in range(8):
        save_mask(truth / f"{step:05d}.png", scene(step)[1])
    code, out, _ = vcorr("evaluate", "davis", "--root", "davis", "--pred", truth.parent)
    assert code == 0
    header, row, overall = (line.split() for line in out.splitlines())
    assert header[:3] == ["sequence", "objects", "J&F"]
    assert row[:3] == ["scene", "2", "100.0"]
    assert overall[-7] == "100.0"
    common = ("evaluate", "davis", "--root", "davis", "--workers", 1, "--json")
    code, out, err = vcorr(*common, "--weights", weights, "--out", "kept")
    assert code == 0, err
    assert 0 <= json.loads(out)["j_and_f"] <= 1
    assert len(list(Path("kept/scene").iterdir())) == 8
    assert vcorr(*common, "--weights", weights, "--out", "kept")[:2] == (0, out)
    code, _, err = vcorr(*common, "--weights", tmp_path / "none", "--out", "kept")
    assert (code, "no such file" in err) == (3, True)
    Path("kept/made_by.json").write_text('{"made by": "weights 123"}')
    code, _, err = vcorr(*common, "--weights", weights, "--out", "kept")
    assert (code, "holds the results of others (made by weights 123 -> " in err) == (4, True)
    code, _, err = vcorr(*common)
    assert (code, "exactly one" in err) == (2, True)


def test_frame(vcorr, frames: Path) -> None:
    code, out, _ = vcorr("frame", frames, 3)
    assert (code, out.strip()) == (0, "frame_00003.png")
    np.testing.assert_array_equal(np.asarray(Image.open("frame_00003.png")), scene(3)[0])
    deep = Path("deep")
    deep.mkdir()
    Image.fromarray(scene(3)[0][:, :, 0].astype(np.uint16) * 16).save(deep / "0.png")
    code, _, err = vcorr("frame", deep, 0)
    assert (
        code == 0 and "4095 as white in every frame" in err and np.ptp(np.asarray(Image.open("frame_00000.png"))) > 99
    )
    code, _, err = vcorr("frame", frames, 8)
    assert (code, "give 0 to 7" in err) == (2, True)
    code, _, err = vcorr("frame", frames, 0, "no/such/folder/x.png")
    assert code == 4


@pytest.mark.slow
@takes_any_name
@pytest.mark.parametrize("encoding", ["utf-8:strict", "latin-1:strict"])
def test_a_name_that_cannot_be_printed_ends_nothing(frames: Path, tmp_path: Path, encoding: str) -> None:
    """Nor a letter that the terminal does not know. What is printed names the file, where it can."""
    folder = tmp_path / f"{NOT_TEXT}漢"
    frames.rename(folder)
    image = tmp_path / f"{NOT_TEXT}漢.png"
    command = [sys.executable, "-m", "vcorr", "frame", folder, "3", image]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    result = subprocess.run([os.fsencode(a) for a in command], capture_output=True, env=environment, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
    if encoding.startswith("utf"):
        assert result.stdout == os.fsencode(image) + b"\n"
    assert image.exists()


def test_a_frame_is_not_written_among_the_frames(vcorr, frames: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(frames)
    code, _, err = vcorr("frame", ".", 0)
    assert (code, "would be one more frame" in err and "../frame_00000.png" in err) == (2, True)
    assert len(list(frames.iterdir())) == 8
    assert vcorr("frame", ".", 0, "../frame_00000.png")[0] == 0


def test_a_mask_among_the_frames_is_no_frame(vcorr, frames: Path, weights: Path) -> None:
    mask = save_mask(frames / "mask.png", scene(0)[1])
    common = ("--weights", weights, "--device", "cpu")
    code, out, err = vcorr("propagate", frames, mask, "--out", "o", *common)
    assert (code, "8 masks in" in out) == (0, True), err
    other = save_mask(frames.parent / "other.png", scene(0)[1])
    code, _, err = vcorr("propagate", frames, other, "--out", "o2", *common)
    assert (code, "mask.png among 8 frames" in err) == (3, True)


def test_a_folder_of_results_is_corrected(vcorr, frames: Path, mask: Path, weights: Path, tmp_path: Path) -> None:
    later = save_mask(tmp_path / "later.png", scene(5)[1])
    command = ("propagate", frames, mask, "--out", "o", "--weights", weights, "--device", "cpu")
    assert vcorr(*command, "--end", 7, "--export", "coco")[0] == 0
    before = {p.name: p.read_bytes() for p in Path("o/masks").iterdir()}
    code, _, err = vcorr(*command, "--end", 7, "--update", "--at", f"5={later}")
    assert code == 0 and "labelled now: 5. Labelled anew: 1 to 4, 6 (5 of 7 frames)" in err
    assert "exported before this update: coco.json; `vcorr export o --to NAME` makes them again" in err
    code, _, err = vcorr(*command, "--end", 7)
    assert code == 4 and "say --update to correct it" in err
    code, _, err = vcorr(*command, "--end", 7, "--update", "--without", 4)
    assert code == 2 and "--without 4: frame 4 was given no label" in err
    assert vcorr(*command, "--end", 7, "--update", "--without", 5)[0] == 0
    assert {p.name: p.read_bytes() for p in Path("o/masks").iterdir()} == before


def test_each_mask_is_told_in_a_line(vcorr, frames: Path, mask: Path, weights: Path, tmp_path: Path) -> None:
    """File, frame, objects, background; and what names mean, where they can be read both ways."""
    later = save_mask(tmp_path / "later.png", scene(4)[1])
    common = ("--weights", weights, "--device", "cpu")
    code, _, err = vcorr("propagate", frames, mask, "--at", f"4={later}", "--out", "o", *common)
    share = f"{100 * float(np.mean(scene(0)[1] == 0)):.3g}%"
    objects = f"objects 1 (#c80000), 2 (#0000c8); background index 0 (#000000), {share}"
    assert code == 0
    assert f"{mask} labels frame 0 (00000.png): {objects}" in err.splitlines()
    assert f"{later} labels frame 4 (00004.png): {objects}" in err.splitlines()
    for k in reversed(range(8)):
        (frames / f"{k:05d}.png").rename(frames / f"{k + 1:05d}.png")
    folder = tmp_path / "masks"
    folder.mkdir()
    later.rename(folder / "00004.png")
    code, _, err = vcorr("propagate", frames, folder, "--out", "o2", *common)
    assert (code, "two ways" in err and "--named-by index or --named-by frame" in err) == (3, True)
    for named_by, frame in (("index", "4 (00005.png)"), ("frame", "3 (00004.png)")):
        code, _, err = vcorr("propagate", frames, folder, "--named-by", named_by, "--out", named_by, *common)
        assert (code, f"{folder}/00004.png labels frame {frame}: " in err) == (0, True)


def bad_inputs(
    tmp_path: Path, frames: Path, mask: Path, weights: Path
) -> dict[str, tuple[tuple[object, ...], int, str]]:
    """Name -> arguments after ``propagate``, exit code, words of the one line."""
    empty, text = tmp_path / "empty.mp4", tmp_path / "text.mp4"
    empty.touch()
    text.write_text("no video at all\n" * 100)
    small = save_mask(tmp_path / "small.png", np.ones((HEIGHT, WIDTH // 2), np.uint8))
    blank = save_mask(tmp_path / "blank.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    soft = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    soft[10:30, 10:40] = 250, 40, 40
    for k in range(10):
        soft[9, 10 + k] = 200 - 19 * k, 32, 32 + k
    Image.fromarray(soft).save(tmp_path / "soft.png")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(weights.read_bytes()[:500])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("all of it")
    return {
        "missing": ((tmp_path / "none.mp4", mask), 3, "none.mp4"),
        "empty": ((empty, mask), 3, "empty.mp4"),
        "not a video": ((text, mask), 3, "text.mp4"),
        "missing mask": ((frames, tmp_path / "none.png"), 3, "none.png"),
        "size": ((frames, small), 3, "64x48"),
        "blank": ((frames, blank), 3, "no object"),
        "soft edges": ((frames, tmp_path / "soft.png"), 3, "soft.png"),
        "weights": ((frames, mask, "--weights", broken), 3, "broken.safetensors"),
        "no weights": ((frames, mask, "--weights", tmp_path / "none"), 3, "no such file"),
        "foreign folder": ((frames, mask, "--out", "other"), 4, "holds no results"),
        "device": ((frames, mask, "--device", "abacus"), 2, "--device abacus"),
        "range": ((frames, mask, "--start", 9), 2, "8 frames"),
        "size option": ((frames, mask, "--size", 3), 2, "--size"),
    }


@pytest.mark.parametrize(
    "case",
    [
        *("missing", "empty", "not a video", "missing mask", "size", "blank", "soft edges", "weights", "no weights"),
        *("foreign folder", "device", "range", "size option"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(vcorr, tmp_path, frames, mask, weights, case) -> None:
    args, wanted, words = bad_inputs(tmp_path, frames, mask, weights)[case]
    given = args if "--weights" in args else (*args, "--weights", weights)
    given = given if "--out" in given else (*given, "--out", "results")
    code, out, err = vcorr("propagate", *given)
    assert (code, out) == (wanted, "")
    assert words in err
    if wanted != 2 or case != "size option":  # the parser draws a box around its own errors
        lines = [line for line in err.splitlines() if " labels frame 0 " not in line]
        assert len(lines) == 1
        assert lines[0].startswith("vcorr: ")
    assert not (tmp_path / "results").exists()


def test_train_errors(vcorr, tmp_path: Path) -> None:
    code, _, err = vcorr("train", "mast_cpu", "pairs.stepz=5", "--show")
    assert code == 2
    assert "did you mean" in err
    assert "pairs.steps" in err
    code, _, err = vcorr("train", "mats")
    assert code == 2
    assert "mast" in err
    code, _, err = vcorr("train", "mast_cpu")
    assert (code, "--data" in err) == (2, True)
    code, _, err = vcorr("train", "mast_cpu", "--data", tmp_path / "none", "--out", "run")
    assert (code, "no such folder" in err) == (3, True)
    assert not (tmp_path / "run").exists()


def test_show(vcorr) -> None:
    code, out, _ = vcorr("train", "mast_cpu", "pairs.steps=7", "--show")
    assert code == 0
    assert "pairs.steps=7" in out.splitlines()
    assert out.splitlines()[-1] == "parameters: 5,291,648"


def test_recipes_are_listed_and_copied(vcorr, tmp_path: Path) -> None:
    code, out, _ = vcorr("recipes")
    assert code == 0 and "mast_cpu" in [line.split()[0] for line in out.splitlines()]
    assert vcorr("recipes", "copy", "mast_cpu")[:2] == (0, "mast_cpu.py\n")
    (tmp_path / "mast_cpu.py").write_text((tmp_path / "mast_cpu.py").read_text().replace("batch=8", "batch=9"))
    code, out, _ = vcorr("train", "mast_cpu.py", "--show")
    assert code == 0 and "pairs.batch=9" in out.splitlines()
    code, _, err = vcorr("recipes", "copy", "mast_cpu")
    assert (code, err) == (4, "vcorr: mast_cpu.py: exists already; remove it, or stand in another folder\n")
    assert "batch=9" in (tmp_path / "mast_cpu.py").read_text()
    assert vcorr("recipes", "copy", "no_such")[0] == 2


def test_internal_errors_show_no_traceback(vcorr, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("the moon is in the wrong house")

    monkeypatch.setattr("vcorr.propagation.run.pick_device", fail)
    code, _, err = vcorr("propagate", "a", "b")
    assert code == 1
    assert "internal error: RuntimeError: the moon" in err
    assert "Traceback" not in err


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("place", "call"), [("PIL.ImageFile.ImageFile.load", 9), ("vcorr.labels.mask_set.write_mask", 5)]
)
def test_a_signal_is_no_damage_and_loses_no_frame(vcorr, frames, mask, weights, monkeypatch, place, call) -> None:
    """Where it hits a decoder, whose errors of any kind are told as a damaged file; where a mask is being written."""
    work, calls = pkgutil.resolve_name(place), itertools.count()

    def interrupted(*args: object) -> object:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGINT)
        return work(*args)

    command = ("propagate", frames, mask, "--out", "o", "--weights", weights, "--device", "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(place, interrupted)
        code, _, err = vcorr(*command)
    assert code == 130, err
    assert "run the same command to resume" in err
    written = len(list(Path("o/masks").glob("*.png")))
    assert 0 < written < 8
    code, _, err = vcorr(*command)
    assert code == 0, err
    assert f"going on after {written}" in err


SLOWLY = """
import time
from vcorr.labels import mask_set
write = mask_set.write_mask
mask_set.write_mask = lambda *given: (time.sleep(0.2), write(*given))  # to be caught at work, however busy the machine
from vcorr.cli import main
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "wanted"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_leaves_a_folder_that_goes_on(vcorr, frames, mask, weights, tmp_path, number, wanted) -> None:
    for step in range(8, 40):
        Image.fromarray(scene(step % 8)[0]).save(frames / f"{step:05d}.png")
    command = ["propagate", frames, mask, "--out", tmp_path / "o", "--weights", weights]
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while len(list((tmp_path / "o" / "masks").glob("*.png"))) < 5:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == wanted, err
    assert "run the same command to resume" in err
    code, _, err = vcorr(*command)
    assert code == 0, err
    assert "going on after" in err
    assert len(list((tmp_path / "o" / "masks").glob("*.png"))) == 40


def test_export(vcorr, frames: Path, mask: Path, weights: Path, tmp_path: Path) -> None:
    common = ("propagate", frames, mask, "--weights", weights)
    code, out, _ = vcorr(*common, "--out", "results", "--export", "csv", "--export", "coco")
    assert (code, "objects.csv" in out, (tmp_path / "results/export/coco.json").is_file()) == (0, True, True)
    code, out, _ = vcorr("export", "results", "--to", "yolo")
    assert (code, Path(out.strip()).name) == (0, "yolo")
    code, _, err = vcorr(*common, "--out", "others", "--export", "deeplabcut")
    assert (code, "does not hold masks" in err, (tmp_path / "others").exists()) == (2, True, False)


def test_the_weights_that_come_with_vcorr_are_copied_with_other_settings_by_name(vcorr) -> None:
    code, out, _ = vcorr("weights", "default", "inference.follow=0.07", "--export", "follow.safetensors")
    assert code == 0 and "inference.follow=0.07" in out
    assert load_weights(Path("follow.safetensors")).inference.follow == 0.07
