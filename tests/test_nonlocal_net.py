"""The door for other Python programs."""

import json
import subprocess
import sys

import legacy_run
import numpy as np
import pytest

from engine import prediction
from nonlocal_net import create_model, load_config, load_model, predict
from utils.errors import UserError


@pytest.fixture
def model(job):
    cfg = load_config(legacy_run.YAML, legacy_run.words(job.data, job.folder)[2:])
    return load_model(cfg, job.weights, views=(2, 3))


def test_predicting_a_video(model, job):
    probabilities = predict(model, str(job.data / "tall.mp4"))
    assert probabilities.shape == (10,) and probabilities.sum() == pytest.approx(1)
    assert model.protocol.views == 6 and model.protocol.clip_shape == (3, 2, 200, 200)


def test_a_video_that_cannot_be_read_is_an_error_with_its_name(model, job):
    with pytest.raises(UserError, match="gone.mp4: No such file"):
        predict(model, str(job.data / "gone.mp4"))


def test_the_door_only_passes_things_on():
    assert predict is prediction.predict and load_model is prediction.load_model
    assert create_model.__module__ == "models.model_builder_video"


def test_beside_a_package_named_datasets(model, job, repo, tmp_path):
    """Hugging Face's `datasets`, for example: imported before and after, it stays what it is."""
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets/__init__.py").write_text("def load_dataset():\n    return 'theirs'\n")
    program = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
import datasets
sys.path.insert(0, {str(repo / "lib")!r})
from nonlocal_net import load_config, load_model, predict
cfg = load_config({str(legacy_run.YAML)!r}, {legacy_run.words(job.data, job.folder)[2:]!r})
probabilities = predict(load_model(cfg, {str(job.weights)!r}, views=(2, 3)), {str(job.data / "tall.mp4")!r})
del sys.modules["datasets"]
import datasets as later
import json
print(json.dumps([datasets.load_dataset(), later.load_dataset(), probabilities.tolist()]))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    first, later, probabilities = json.loads(run.stdout)
    assert (first, later) == ("theirs", "theirs")
    np.testing.assert_allclose(probabilities, predict(model, str(job.data / "tall.mp4")), rtol=1e-5)
