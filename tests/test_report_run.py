"""tools/report_run.py: the page of a run, opened in a real browser."""

import re
import shutil

import legacy_run
import numpy as np
import pytest
import torch
from browser import CHROMIUM, Browser
from made_run import CLIPS, make_run, write_log
from video_files import moving_square, write_video

import report_run
from core.config import load_config
from engine.run_folder import read_run_folders
from engine.run_report import write_report
from formats.blobs import model_blobs
from formats.caffe2_pickle import dump
from models.attention_maps import nonlocal_blocks
from models.model_builder_video import create_model
from reports.run_page import PARTS
from reports.video_scores import read_results, score_videos

# Names that would do something if they were anything but text.
HOSTILE = ["<script>hacked=1</script>", "</script><img src=x onerror=hacked=2>", "a & b \"c\" 'd' &lt;", "<!--<script>",
           "{{ 7 * 7 }}", "../../<b>"]
LABELS = np.arange(30) % 6
NETWORK = {"MODEL__MODEL_NAME": "resnet_video", "MODEL__VIDEO_ARC_CHOICE": 2, "RESNETS__WIDTH_PER_GROUP": 2,
           "RESNETS__STEM_OUT_CHANNELS": 8, "NONLOCAL__LAYER_MOD": 4, "TRAIN__VIDEO_LENGTH": 4, "TRAIN__SAMPLE_RATE": 2,
           "TRAIN__JITTER_SCALES": "[200,240]", "TEST__SCALE": 200}


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    with Browser() as running:
        yield running


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of six classes with hostile names, three videos that are there, and the weights of a tiny network."""
    folder = tmp_path_factory.mktemp("runs") / "run_<six>"
    make_run(folder, HOSTILE, LABELS, **NETWORK)
    for line in (folder / "gt.txt").read_text().splitlines()[::9]:
        path = folder / line.rpartition(" ")[0]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, moving_square(16, 80, 96, seed=len(line)))
    words = {name.replace("__", "."): value for name, value in NETWORK.items()} | {"MODEL.NUM_CLASSES": len(HOSTILE)}
    network = create_model(load_config(None, [str(word) for pair in words.items() for word in pair]), "test")
    with torch.no_grad():
        for name in nonlocal_blocks(network):
            getattr(network, name).theta.weight.mul_(3000)
    (folder / "checkpoints").mkdir()
    dump({name: blob.numpy() for name, blob in model_blobs(network).items()},
         folder / "checkpoints/c2_model_iter40.pkl")
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A run of 400 classes with 2,000 results, whose videos are gone."""
    folder = tmp_path_factory.mktemp("runs") / "many"
    make_run(folder, [f"class number {k}" for k in range(400)], np.arange(2000) % 400, seed=1,
             scores_file="results_scores.h5")
    return folder


def report(call_tool, *words):
    """Runs the tool; returns its output."""
    status, output, errors = call_tool(report_run, *words)
    assert (status, errors) == (None, "")
    assert output.splitlines()[-1] == f"Report saved to: {output.rpartition(': ')[2].strip()}"
    return output


def mean_scores(folder):
    """The mean over the clips of each video, and its class by that."""
    _, scores = read_results(next(folder.glob("results_*")))
    means = scores.reshape(-1, CLIPS, scores.shape[1]).mean(1)
    return means, means.argmax(1)


def percent(share, decimals=2):
    return f"{100 * share:.{decimals}f}\N{NO-BREAK SPACE}%"


def numbers(texts):
    return [float(re.match(r"[\d.]+", text)[0]) for text in texts]


def cells(page, table):
    return page.value(f"[...document.querySelectorAll('{table} tbody tr')].map(row => [...row.cells].map(cell => "
                      "cell.textContent.trim()))")


# ------------------------------------------------------------------------------------------ one run, in the browser


@pytest.fixture(scope="module")
def page_file(run):
    """The report of `run`, made once."""
    path, left_out = write_report([run], None, classes=run / "names.txt")
    assert left_out == {}
    return path


def test_the_numbers_are_those_of_the_files(page_file, run, browser):
    page = browser.open(page_file)
    means, winners = mean_scores(run)
    hits = winners == LABELS

    tiles = dict(zip(page.text("header .tile span"), page.text("header .tile b"), strict=True))
    ranks = (means > means[np.arange(30), LABELS][:, None]).sum(1)
    assert 0.2 < hits.mean() < 0.9
    assert tiles["top-1 accuracy"] == percent(hits.mean()) and tiles["top-5 accuracy"] == percent((ranks < 5).mean())
    assert (tiles["lowest validation error"], tiles["iterations"], tiles["clips a second"]) == ("42.50 %", "40", "16")
    assert page.text("header .tile small")[0] == f"{hits.sum()} of 30 test videos"

    table = cells(page, "#by-class")
    for k, row in enumerate(table):
        mine = k == LABELS
        wrong = np.bincount(winners[mine & ~hits], minlength=6)
        expected = [str(k), HOSTILE[k], "5", percent(hits[mine].mean()), "", percent((ranks < 5)[mine].mean()),
                    HOSTILE[wrong.argmax()] if wrong.any() else "", str(wrong.max() or "")]
        assert row == expected
    pairs = {(true, other): (int(count), share) for true, other, count, share in cells(page, "#pairs")}
    for k in range(6):
        for other in set(range(6)) - {k}:
            count = int(((k == LABELS) & (winners == other)).sum())
            if count:
                assert pairs.pop((HOSTILE[k], HOSTILE[other])) == (count, percent(count / 5, 1))
    assert pairs == {}

    confidences = means.max(1)
    error = 0
    for low, *row in cells(page, "#bins"):
        mine = (confidences * 10).astype(int) == int(low.split("\N{NO-BREAK SPACE}")[0]) // 10
        assert row == [str(mine.sum()), percent(confidences[mine].mean()), percent(hits[mine].mean())]
        error += abs(confidences[mine].sum() - hits[mine].sum()) / 30
    assert page.text("#ece") == [percent(error)]

    assert cells(page, "#evaluations") == [["20", "61.25", "12.50", "1.7500", "70.00", "17.50"],
                                           ["40", "42.50", "7.50", "1.2500", "50.00", "12.50"]]
    wrong = np.flatnonzero(~hits)
    wrong = wrong[np.argsort(-confidences[wrong])]
    verdicts = page.text("#mistakes .cards:first-of-type .verdict")
    assert verdicts == [f"{HOSTILE[LABELS[i]]} taken for {HOSTILE[winners[i]]}" for i in wrong[:12]]
    assert numbers(page.text("#mistakes .card .scores li:first-child .n"))[:len(verdicts)] == [
        float(f"{100 * confidences[i]:.1f}") for i in wrong[:12]]
    options = {row[0]: row[1] for row in cells(page, ".options")}
    assert (options["TRAIN.BATCH_SIZE"], options["MODEL.NUM_CLASSES"]) == ("8", "6")
    assert options["MODEL.PRECISION"] == "'tf32'"


def test_whatever_the_run_says_is_text(page_file, run, browser):
    page = browser.open(page_file)
    assert page.text("h1") == ["run_<six>"] and page.value("document.title") == "run_<six>: report"
    assert page.value("typeof hacked") == "undefined"
    assert page.value("document.scripts.length") == 2
    assert page.value("[...document.images].every(image => image.src.startsWith('data:image/webp') "
                      "&& image.complete && image.naturalWidth > 300)")
    text = page_file.read_text()
    assert text.count("<script") == text.count("</script") == 2
    assert "49" not in page.text("#by-class a")
    for name in HOSTILE:
        page.value(f"document.getElementById('pick').value = {name!r};"
                   "document.getElementById('pick').dispatchEvent(new Event('change'))")
        assert page.text("#class-panel h3") == [name]


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_request_leaves_and_the_console_is_empty(page_file, browser, width, dark, tmp_path):
    page = browser.open(page_file, width, 844, dark)
    assert page.requests == [page_file.as_uri()] and page.complaints == []
    assert page.value("document.documentElement.scrollWidth") <= width
    back = page.value("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", back))) < 200) == dark
    page.point("#theme", 5, 5, click=True)
    assert page.value("getComputedStyle(document.body).backgroundColor") != back
    assert page.value("document.querySelectorAll('.chart > svg').length") == 6
    assert page.ask("Page.printToPDF", printBackground=True)["data"]
    assert page.complaints == []


def test_what_a_finger_has_tapped_stays(page_file, browser):
    page = browser.open(page_file, 390, 844)
    shown = "document.getElementById('tip').style.display"
    page.tap("[data-curve=loss] svg", 100, 60)
    assert page.value(shown) == "block" and page.text("#tip")[0].startswith("iteration ")
    page.tap("#matrix canvas", 200, 30)
    assert page.value(shown) == "block" and " of 5 videos" in page.text("#tip")[0]
    assert page.value("document.querySelector('[data-curve=loss] .cursor').getAttribute('visibility')") == "hidden"
    page.tap("#class-panel h3", 5, 5)
    assert page.value(shown) == "none"
    assert page.complaints == []


def test_a_browser_that_notices_nothing_would_fail(browser, tmp_path):
    (tmp_path / "page.html").write_text("<img src='http://127.0.0.1:9/x.png'><script>console.error('x'); y()</script>")
    page = browser.open(tmp_path / "page.html")
    assert "http://127.0.0.1:9/x.png" in page.requests
    assert len(page.complaints) >= 2


def test_the_page_lets_nothing_else_run_or_load(page_file, browser, tmp_path):
    """Even if a name became markup."""
    broken = page_file.read_text().replace("<main>", "<main><script>hacked=1</script><img src='http://127.0.0.1:9/x'>")
    (tmp_path / "broken.html").write_text(broken)
    page = browser.open(tmp_path / "broken.html")
    assert page.value("typeof hacked") == "undefined"
    assert len(page.complaints) == 2 and all("Content Security" in str(one) for one in page.complaints)


def test_pictures_of_videos_that_are_there(page_file, run, browser):
    page = browser.open(page_file)
    there = {path.name for path in run.glob("videos/*/*.mp4")}
    assert len(there) == 4
    shown = page.value("[...document.querySelectorAll('.card')].map(card => "
                       "[card.querySelector('.path').textContent, card.querySelector('img') !== null])")
    assert len(shown) > 10
    assert all((path.rpartition("/")[2] in there) == strip for path, strip in shown)
    assert any(strip for _, strip in shown)
    pictures = page.text("#attention figcaption .note")
    assert 1 <= len(pictures) <= 4 and {path.rpartition("/")[2] for path in pictures} <= there


# ------------------------------------------------------------------------------------------------------ many classes


def test_400_classes(many, browser, call_tool):
    output = report(call_tool, many, "--classes", many / "names.txt")
    assert output.splitlines()[0] == f"Left out: attention: no weights in {many}/checkpoints"
    path = many / "report.html"
    assert path.stat().st_size < 1 << 20
    page = browser.open(path)
    assert page.complaints == [] and page.requests == [path.as_uri()]
    assert "not at its path" in page.text(".strip.none")[0]
    _, winners = mean_scores(many)
    labels = np.arange(2000) % 400

    side = page.value("document.querySelector('#matrix canvas').getBoundingClientRect().width")
    wrong = int(np.flatnonzero(winners != labels)[0])
    row, column = int(labels[wrong]), int(winners[wrong])
    count = int(((labels == row) & (winners == column)).sum())
    page.point("#matrix canvas", (column + 0.5) * side / 400, (row + 0.5) * side / 400, click=True)
    assert page.text("#tip") == [f"class number {row}\ntaken for class number {column}: {count} of 5 videos "
                                 f"({20 * count}.0 %)"]
    assert page.text("#class-panel h3") == [f"class number {row}"]
    assert f"class number {column}" in page.text("#class-panel li a")

    page.value("document.getElementById('order').value = 'accuracy';"
               "document.getElementById('order').dispatchEvent(new Event('change'))")
    hits = np.bincount(labels[winners == labels], minlength=400)
    page.point("#matrix canvas", 0.5 * side / 400, 0.5 * side / 400)
    assert page.text("#tip")[0].startswith(f"class number {hits.argmin()}\nright: {hits.min()} of 5")

    page.value("document.getElementById('filter').value = 'number 39';"
               "document.getElementById('filter').dispatchEvent(new Event('input'))")
    assert page.value("[...document.querySelectorAll('#by-class tbody tr')].filter(row => !row.hidden).length") == 11
    page.value("document.querySelectorAll('#by-class th')[3].click()")
    assert numbers(row[3] for row in cells(page, "#by-class")) == sorted(20.0 * hits)


def test_the_curves_show_the_numbers_of_the_log(many, run, browser, call_tool, tmp_path):
    report(call_tool, many, run, "--output", tmp_path / "two.html")
    page = browser.open(tmp_path / "two.html")
    assert page.complaints == []
    rows = cells(page, "#runs table")
    assert [row[:4] for row in rows[:2]] == [[name, "40", "42.50", "7.50"] for name in ("many", "run_<six>")]
    differing = {row[0]: row[1:] for row in rows[2:]}
    assert differing["MODEL.NUM_CLASSES"] == ["400", "6"] and "RNG_SEED" not in differing
    width = page.value("document.querySelector('[data-curve=top1] svg').getBoundingClientRect().width")
    page.point("[data-curve=top1] svg", width - 19, 60)
    mean = 40 * np.mean([2 - 38 / 40, 2 - 39 / 40])  # of the last two lines, a twentieth
    assert page.text("#tip")[0].splitlines() == ["iteration 40", *(line for name in ("many", "run_<six>") for line in (
        f"{name}, training: {mean:.4g}", f"{name}, validation (at 40): 42.5"))]
    drawn = "document.querySelectorAll('[data-curve=top1] polyline').length"
    assert page.value(drawn) == 4
    page.point("#legend button", 5, 5, click=True)
    assert page.value(drawn) == 2


# ------------------------------------------------------------------------------------ what a run may lack, and mistakes


def copied(run, folder, *names):
    """A copy of some files of a run."""
    folder.mkdir()
    for name in names:
        shutil.copy(run / name, folder)
    return folder


@pytest.mark.parametrize(("names", "words", "part", "why"), [
    (["log.txt"], [], "test", "no scores of a test in {folder}: it has not been tested, or not to the end"),
    (["log.txt", "results_probs.pkl"], [], "test",
     "the list of the test's videos, {run}/gone.txt (FILENAME_GT), is not there: --truth gives it"),
    (["log.txt", "results_probs.pkl", "gt.txt"], ["--truth", "{folder}/gt.txt"], "attention",
     "no weights in {folder}/checkpoints"),
])
def test_what_is_missing_is_left_out_and_says_why(names, words, part, why, run, tmp_path, call_tool):
    folder = copied(run, tmp_path / "a", *names)
    log = (folder / "log.txt").read_text().replace(f"{run}/gt.txt", f"{run}/gone.txt")
    (folder / "log.txt").write_text(log)

    def fill_in(text):
        return text.format(folder=folder, run=run)

    output = report(call_tool, folder, *map(fill_in, words))
    assert output == f"Left out: {part}: {fill_in(why)}\nReport saved to: {folder}/report.html\n"
    page = (folder / "report.html").read_text()
    assert f"left out: {fill_in(why)}.".replace("'", "&#39;").replace("<", "&lt;").replace(">", "&gt;") in page


def test_a_test_without_a_training_and_a_training_without_anything(run, tmp_path, call_tool, browser):
    folder = copied(run, tmp_path / "a", "results_probs.pkl", "gt.txt")
    write_log(folder / "log.txt", {"CHECKPOINT.DIR": folder, "FILENAME_GT": folder / "gt.txt"}, steps=0,
              report=score_videos(*read_results(folder / "results_probs.pkl"), LABELS, CLIPS))
    assert "Left out: attention" in report(call_tool, folder)
    page = browser.open(folder / "report.html")
    assert page.text("#curves .missing, #speed .missing") == [
        "Curves are left out: the log has no training.", "Speed is left out: the log has no times of steps."]
    assert len(cells(page, "#by-class")) == 6 and page.complaints == []
    line = next(line for line in (run / "log.txt").read_text().splitlines() if line.startswith("| Train"))
    (folder / "log.txt").write_text(f"{line}\n")
    (folder / "results_probs.pkl").unlink()
    report(call_tool, folder)
    page = browser.open(folder / "report.html")
    assert len(page.text("section > .missing")) == 7 and page.complaints == []
    assert page.value("document.querySelectorAll('.chart > svg').length") == 5


def test_a_list_of_another_test_is_left_out_unless_it_was_asked_for(run, tmp_path, call_tool):
    folder = copied(run, tmp_path / "a", "log.txt", "results_probs.pkl")
    (tmp_path / "short.txt").write_text("a.mp4 0\n")
    log = (folder / "log.txt").read_text().replace(f"{run}/gt.txt", f"{tmp_path}/short.txt")
    (folder / "log.txt").write_text(log)
    expected = f"{folder}/results_probs.pkl: expected video indices 0 to 0, as {tmp_path}/short.txt has 1 lines, got 0 "
    assert report(call_tool, folder).startswith(f"Left out: test: {expected}to 29; --truth gives another list\n")
    status, _, errors = call_tool(report_run, folder, "--truth", tmp_path / "short.txt")
    assert (status, errors) == (1, f"error: {expected}to 29\n")


def test_scores_that_are_no_probabilities(run, tmp_path, call_tool):
    folder = copied(run, tmp_path / "a", "log.txt", "gt.txt")
    shutil.copy(legacy_run.REPO / "tests/data/legacy_scores.csv", tmp_path)
    rows = np.loadtxt(tmp_path / "legacy_scores.csv", delimiter=",")
    dump([[int(row[0]), (9 * row[1:]).tolist()] for row in rows], folder / "results_probs.pkl")
    (folder / "gt.txt").write_text("".join(f"c/v{i}.mp4 {i}\n" for i in range(4)))
    output = report(call_tool, folder, "--truth", folder / "gt.txt")
    assert "Left out: calibration: the scores of the test are not probabilities" in output


def test_the_run_of_the_legacy_program(shared, tmp_path, call_tool):
    folder = tmp_path / "run"
    shutil.copytree(shared / "reference/end_to_end", folder)
    assert "Report saved" in report(call_tool, folder, "--truth", folder / "gt.txt")
    page = (folder / "report.html").read_text()
    assert "25.00\N{NO-BREAK SPACE}%" in page and "50.00\N{NO-BREAK SPACE}%" in page and "MODEL.NUM_CLASSES" in page


def test_a_run_of_the_tools(job, tmp_path, call_tool, browser):
    """A video that is missing and one that is damaged are among its three."""
    folder = tmp_path / "run"
    shutil.copytree(job.folder, folder)
    (folder / "log.txt").write_text(job.output)
    output = report(call_tool, folder)
    assert "Left out: attention: the network has no non-local block" in output
    page = browser.open(folder / "report.html")
    assert page.complaints == []
    tiles = dict(zip(page.text("header .tile span"), page.text("header .tile b"), strict=True))
    assert tiles["top-1 accuracy"].replace("\N{NO-BREAK SPACE}%", " percent") in job.output
    assert page.text("header .missing")[0] == "1 of 3 videos have no scores; they count as wrong."
    assert "10 clips of 2 frames with stride 3 x 3 crops" in page.text("header")[0]


def test_paths_start_where_the_run_did(tmp_path, monkeypatch):
    """As a script does, the run was started in scripts/; elsewhere there are files of the same names."""
    folder, elsewhere = tmp_path / "nl/data/checkpoints/run_a", tmp_path / "elsewhere/here"
    for path in (folder, tmp_path / "nl/scripts", elsewhere, tmp_path / "elsewhere/data"):
        path.mkdir(parents=True)
    for root in ("nl", "elsewhere"):
        (tmp_path / root / "data/gt.txt").write_text("a.mp4 0\n")
    write_log(folder / "log.txt", {"CHECKPOINT.DIR": "../data/checkpoints/run_a", "FILENAME_GT": "../data/gt.txt"})
    monkeypatch.chdir(elsewhere)
    [run] = read_run_folders([folder])
    assert run.find("../data/gt.txt").resolve() == tmp_path / "nl/data/gt.txt"
    assert run.find("../data/none.txt") is None and run.find("x" * 300) is None and run.find("\0") is None
    assert run.find(tmp_path / "elsewhere/data/gt.txt") == tmp_path / "elsewhere/data/gt.txt"


def test_a_report_is_made_whole_or_not_at_all(run, tmp_path, call_tool):
    folder = copied(run, tmp_path / "a", "log.txt", "results_probs.pkl", "gt.txt")
    (folder / "report.html").write_text("the one before")
    (folder / "results_probs.pkl").write_bytes((folder / "results_probs.pkl").read_bytes()[:-100])
    status, output, errors = call_tool(report_run, folder)
    assert (status, output) == (1, "")
    assert re.fullmatch(f"error: {folder}/results_probs.pkl: .+\n", errors)
    assert (folder / "report.html").read_text() == "the one before"
    assert sorted(path.name for path in folder.iterdir()) == ["gt.txt", "log.txt", "report.html", "results_probs.pkl"]


def test_the_script_holds_no_end_of_itself():
    assert "</script" not in (PARTS / "run_report.js").read_text()
