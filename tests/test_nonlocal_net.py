"""The door for other Python programs."""

import json
import re
import shutil
import subprocess
import sys
import threading

import legacy_run
import numpy as np
import pytest
import torch

import predict_video
from core.config import load_config
from data.class_ids import KINETICS, read_class_names
from engine import video_model
from formats.options_file import options_path
from models.model_builder_video import create_model
from models.released import RELEASED
from nonlocal_net import UserError, load_model, predict
from nonlocal_net import create_model as create_model_of_the_door


@pytest.fixture(scope="module")
def model(job):
    return load_model(job.weights, views=(2, 3))


def test_predicting_a_video(model, job):
    classes, probabilities = predict(model, job.data / "tall.mp4")
    assert probabilities.dtype == np.float64 and probabilities.shape == (10,)
    assert probabilities.sum() == pytest.approx(1) and (np.diff(probabilities) <= 0).all()
    assert sorted(classes) == sorted(model.classes) == [f"class {i}" for i in range(10)]
    assert model.protocol.views == 6 and model.protocol.clip_shape == (3, 2, 200, 200)
    assert model.device == torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clips = torch.zeros(2, *model.protocol.clip_shape, device=model.device)
    assert model(clips).shape == (2, 10) and not model.training


def test_the_numbers_are_those_of_the_tool(model, job, tmp_path, call_tool):
    status, _, errors = call_tool(predict_video, "--weights", job.weights, "--video", job.data / "tall.mp4", "--views",
                                  "2x3", "--top", 10, "--json", tmp_path / "r.json")
    assert status == 0, errors
    [result] = json.loads((tmp_path / "r.json").read_text())["videos"]
    found = predict(model, job.data / "tall.mp4")
    assert [(f"class {row['class_id']}", row["probability"]) for row in result["top"]] == list(
        zip(found.classes, found.probabilities.tolist(), strict=True))


def test_a_configuration_of_ones_own(model, job, tmp_path):
    shutil.copy(job.weights, tmp_path / "w.pkl")
    with pytest.raises(UserError, match="w.pkl: weights do not tell the clips that they were trained with: expected "):
        load_model(tmp_path / "w.pkl")
    cfg = load_config(legacy_run.YAML, legacy_run.words(job.data, job.folder)[2:])
    own = load_model(tmp_path / "w.pkl", cfg, "cpu", views=(2, 3))
    found, expected = (predict(each, job.data / "wide.mp4") for each in (own, model))
    assert found.classes == expected.classes and np.array_equal(found.probabilities, expected.probabilities)


def test_names_of_the_classes(job, tmp_path):
    names = [f"kind {i}" for i in range(10)]
    (tmp_path / "names.txt").write_text("\n".join(names))
    for given in (names, tmp_path / "names.txt", str(tmp_path / "names.txt")):
        assert load_model(job.weights, classes=given).classes == names
    with pytest.raises(UserError, match="classes: expected the names of 10 classes, got 2"):
        load_model(job.weights, classes=["a", "b"])
    with pytest.raises(UserError, match="names for the classes 0 to 9, got 400"):
        load_model(job.weights, classes=KINETICS)


def test_what_cannot_be_is_an_error_that_says_so(model, job, tmp_path):
    with pytest.raises(UserError, match="gone.mp4: No such file"):
        predict(model, job.data / "gone.mp4")
    with pytest.raises(UserError, match="gone.pkl: cannot read: No such file"):
        load_model(tmp_path / "gone.pkl")
    with pytest.raises(UserError, match="views: expected at least one clip, with 1, 3 or 6 crops, got 10 with 2"):
        load_model(job.weights, views=(10, 2))


def test_several_threads(model, job):
    """Each gets what it would have got alone, to the bit."""
    videos = [job.data / name for name in ("tall.mp4", "wide.mp4", "square.mp4", "damaged.avi")]
    expected = [predict(model, video) for video in videos]
    found = {}

    def work(number):
        for turn in range(3):
            i = (number + turn) % len(videos)
            found[number, i] = predict(model, videos[i])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    for (_, i), (classes, probabilities) in found.items():
        assert classes == expected[i].classes and np.array_equal(probabilities, expected[i].probabilities)


def test_the_door_only_passes_things_on():
    assert predict is video_model.predict and load_model is video_model.load_model
    assert create_model_of_the_door is create_model


def test_the_program_in_the_readme(repo, job, tmp_path):
    """In a folder as the repository, with small weights under the name that it reads."""
    [program] = re.findall(r"```Python\n(.*?)```", (repo / "README.md").read_text(), re.DOTALL)
    assert len(program.splitlines()) == 6
    [name] = re.findall(r"data/pretrained_model/(\w+).pkl", program)
    assert name in RELEASED
    folder = tmp_path / "data/pretrained_model"
    folder.mkdir(parents=True)
    shutil.copy(job.weights, folder / f"{name}.pkl")
    shutil.copy(options_path(job.weights), folder / f"{name}.options.json")
    (tmp_path / "lib").symlink_to(repo / "lib")
    shutil.copy(job.data / "tall.mp4", tmp_path / "video.mp4")
    run = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert re.fullmatch(r"class \d 0\.\d+\n", run.stdout)
    assert run.stderr.startswith("Options from data/pretrained_model/") and run.stderr.count("\n") == 1


def test_the_names_of_kinetics():
    assert video_model._class_names(None, 400) == read_class_names(KINETICS)


def test_beside_a_package_named_datasets(model, job, repo, tmp_path):
    """Hugging Face's `datasets`, for example: imported before and after, it stays what it is."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/__init__.py").write_text("def load_dataset():\n    return 'theirs'\n")
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import datasets
sys.path.insert(0, {str(repo / "lib")!r})
from nonlocal_net import load_model, predict
found = predict(load_model({str(job.weights)!r}, views=(2, 3)), {str(job.data / "tall.mp4")!r})
del sys.modules["datasets"]
import datasets as later
import json
print(json.dumps([datasets.load_dataset(), later.load_dataset(), found.probabilities.tolist()]))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    first, later, probabilities = json.loads(run.stdout)
    assert (first, later) == ("theirs", "theirs")
    np.testing.assert_allclose(probabilities, predict(model, str(job.data / "tall.mp4")).probabilities, rtol=1e-5)
