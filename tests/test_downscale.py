"""downscale_video_joblib.py, with a fake ffmpeg that fails on demand, and with the real one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
from kinetics_tools import assert_one_line, fork_tool


@pytest.fixture
def tool(zygote, tmp_path):
    return partial(fork_tool, zygote, tmp_path)


FAKE_FFMPEG = f"""#!{sys.executable} -IS
import json, os, signal, sys, time
if "-demuxers" in sys.argv:
    print(" D  mov,mp4         QuickTime / MOV")
    sys.exit()
if "-encoders" in sys.argv:
    print(" V....D mpeg4                MPEG-4 part 2")
    sys.exit()
source, target = sys.argv[sys.argv.index("-i") + 1].removeprefix("file:"), sys.argv[-1].removeprefix("file:")
if target == "-":  # is there a video stream?
    sys.exit()
with open(os.environ["CALLS"], "a") as file:
    print(json.dumps(sys.argv[1:]), file=file)
with open(target, "w") as file:
    file.write("half of ")
    file.flush()
    if "slow" in source:
        time.sleep(30)
    if "killed" in source:
        os.kill(os.getpid(), signal.SIGKILL)
    if "bad" in source:
        print("moov atom not found", file=sys.stderr)
        print("Invalid data found", file=sys.stderr)
        sys.exit(3)
    file.write(source)
if "empty" in source:
    os.truncate(target, 0)
"""


@pytest.fixture
def fake(tmp_path):
    """A folder `bin` with a fake ffmpeg. Gives the environment that it is found in."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/ffmpeg").write_text(FAKE_FFMPEG)
    (tmp_path / "bin/ffmpeg").chmod(0o755)
    return {"PATH": str(tmp_path / "bin"), "CALLS": str(tmp_path / "calls")}


def make_videos(tmp_path, *names, prefix="/elsewhere/"):
    for name in names:
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / name).touch()
    (tmp_path / "list.txt").write_text("".join(f"{prefix}{name} 3\n" for name in names))


ARGS = ("downscale_video_joblib.py", "--list_file", "list.txt", "--folder", "train", "--out", "out")


def files_under(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_downscale(tool, fake, tmp_path):
    good = ["a/1.mp4", "a/2.avi", "petting cat/-3 x.mp4"]
    make_videos(tmp_path, *good, "a/bad.mp4", "a/killed.mp4", "a/empty.mp4", "a/1.mp4")
    with open(tmp_path / "list.txt", "a") as file:
        file.write("/elsewhere/a/gone.mp4 3\n/elsewhere/../up.mp4 3\nalone.mp4 3\n")
    status, stdout, _ = tool(*ARGS, "--jobs", "2", **fake)
    assert status == 1
    assert files_under(tmp_path / "out") == [".downscale.lock", *good]
    assert (tmp_path / "out/a/1.mp4").read_text() == "half of train/a/1.mp4"
    failures = [line.partition("]: ")[2] for line in stdout.splitlines() if line.startswith("[ERROR")]
    assert failures == [
        "/elsewhere/../up.mp4 3: expected a path that ends with <class>/<file>",
        "a/bad.mp4: ffmpeg ended with status 3: Invalid data found",
        "a/empty.mp4: ffmpeg wrote nothing: no message",
        "a/gone.mp4: no such file: train/a/gone.mp4",
        "a/killed.mp4: ffmpeg was killed by signal 9",
        "alone.mp4 3: expected a path that ends with <class>/<file>",
    ]
    assert "3 videos rescaled, 6 failed" in stdout

    commands = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    assert len(commands) == 6  # one for each distinct video that is there
    command = next(command for command in commands if "file:train/a/2.avi" in command)
    for option, value in {"-vf": "scale=trunc(oh*a/2)*2:256", "-q:v": "1", "-c:a": "copy"}.items():
        assert command[command.index(option) + 1] == value


def test_downscale_skips_what_is_done(tool, fake, tmp_path):
    make_videos(tmp_path, "a/1.mp4", "a/2.mp4")
    (tmp_path / "out/a").mkdir(parents=True)
    (tmp_path / "out/a/1.mp4").write_text("done before")
    status, stdout, _ = tool(*ARGS, **fake)
    assert status == 0
    assert "2 videos, 1 done before" in stdout and "1 videos rescaled, 0 failed" in stdout
    assert (tmp_path / "out/a/1.mp4").read_text() == "done before"
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_downscale_that_is_stopped_leaves_no_half_video(repo, tool, fake, tmp_path, number):
    make_videos(tmp_path, *[f"a/slow{i}.mp4" for i in range(5)])
    program = str(repo / "process_data/kinetics" / ARGS[0])
    process = subprocess.Popen(
        [sys.executable, program, *ARGS[1:], "--jobs", "2"], cwd=tmp_path, env=os.environ | fake,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )
    deadline = time.monotonic() + 20
    while len(list((tmp_path / "out").rglob(".*.tmp.mp4"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert_one_line(tool(*ARGS, **fake), "another downscale_video_joblib.py is running")
    process.send_signal(number)
    # Not communicate(): after SIGKILL the fake ffmpegs live on and hold the pipes.
    assert process.wait(timeout=20) == (-9 if number == signal.SIGKILL else 128 + number)
    if number == signal.SIGKILL:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        assert process.stdout.read().endswith("Stopping; run the same command again to continue\n")
        assert process.stderr.read().endswith("error: interrupted\n")
        assert files_under(tmp_path / "out") == [".downscale.lock"]
    process.stdout.close()
    process.stderr.close()
    assert not list((tmp_path / "out").rglob("slow*"))

    # The same command, with an ffmpeg that has got faster.
    (tmp_path / "bin/ffmpeg").write_text(FAKE_FFMPEG.replace("time.sleep(30)", "pass"))
    assert tool(*ARGS, **fake)[0] == 0
    assert files_under(tmp_path / "out") == [".downscale.lock", *[f"a/slow{i}.mp4" for i in range(5)]]


def test_downscale_with_other_options_into_the_same_folder(tool, fake, tmp_path):
    make_videos(tmp_path, "a/1.mp4")
    assert tool(*ARGS, **fake)[0] == 0
    assert_one_line(tool(*ARGS, "--fps", "30", **fake), "out: was begun with default options; ", "got --fps 30")
    other = [*ARGS[:-1], "other", "--short_side", "128", "--drop_audio"]
    for words in (other, other, [*other, "--jobs", "1"]):
        assert tool(*words, **fake)[0] == 0
    assert_one_line(tool(*ARGS, "--out", "other", **fake),
                    "other: was begun with --short_side 128 --drop_audio; ", "got default options")
    assert len((tmp_path / "calls").read_text().splitlines()) == 2
    (tmp_path / "other/.downscale.options").write_bytes(b"\xff")
    assert_one_line(tool(*other, **fake), "other/.downscale.options: cannot be read")


def test_downscale_refuses(tool, fake, tmp_path):
    assert_one_line(tool(*ARGS, **fake), "cannot read the list list.txt")
    make_videos(tmp_path)
    assert_one_line(tool(*ARGS, **fake), "an empty file")
    assert_one_line(tool(*ARGS, PATH=str(tmp_path)), "ffmpeg: not found")
    assert_one_line(tool(*ARGS, "--jobs", "0", **fake), "--jobs")
    for rate in ("0", "-1", "1/0", "many", "nan"):
        assert_one_line(tool(*ARGS, f"--fps={rate}", **fake), "--fps: expected frames per second", f"got {rate}")
    for side in ("0", "-2", "99"):
        assert_one_line(tool(*ARGS, f"--short_side={side}", **fake), "--short_side: expected an even number", side)
    assert_one_line(tool(*ARGS, "--for_clips", **fake), "--for_clips: expected an ffmpeg with libx264")
    assert_one_line(tool(*ARGS, "--out", "train/../train", **fake), "--out: expected another folder")
    (tmp_path / "out").touch()
    make_videos(tmp_path, "a/1.mp4")
    assert_one_line(tool(*ARGS, **fake), "out: cannot be created: File exists")


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg here")
def test_downscale_with_the_real_ffmpeg(tool, tmp_path):
    cv2 = pytest.importorskip("cv2")
    make_videos(tmp_path, "a/1.avi", "a/bad.mp4")
    writer = cv2.VideoWriter(str(tmp_path / "train/a/1.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (202, 128))
    for value in range(3):
        writer.write(np.full((128, 202, 3), 50 * value, np.uint8))
    writer.release()
    (tmp_path / "train/a/bad.mp4").write_text("no video")
    status, stdout, _ = tool(*ARGS)
    assert status == 1
    assert "a/bad.mp4: ffmpeg ended with status" in stdout
    assert files_under(tmp_path / "out") == [".downscale.lock", "a/1.avi"]
    video = cv2.VideoCapture(str(tmp_path / "out/a/1.avi"))
    frames = [frame for ok, frame in iter(video.read, (False, None)) if ok]
    assert [frame.shape for frame in frames] == [(256, 404, 3)] * 3


# With the real ffmpeg

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg here")
PICTURES = "-f lavfi -i testsrc2=size={}:rate={}:duration=1"
SOUND = "-f lavfi -i sine=duration=1"


def ffmpeg(words, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["ffmpeg", "-nostdin", "-v", "error", *words.split(), path], capture_output=True, text=True)
    if "Unknown encoder" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr


def film(path, size="64x48", rate=10, words=""):
    """Write a video of one second with sound; words are options, and further inputs before them."""
    ffmpeg(f"{PICTURES.format(size, rate)} {SOUND} {words}", path)


def streams(path, *options):
    """What ffprobe says of the streams and the container: a list of dicts, and the container's names."""
    command = ["ffprobe", "-v", "error", *options, "-show_streams", "-show_format", "-of", "json", path]
    found = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found["streams"], found["format"]["format_name"]


def frame_count(path):
    [video] = [stream for stream in streams(path, "-count_frames")[0] if stream["codec_type"] == "video"]
    return int(video["nb_read_frames"])


def frame_types(path):
    """The kind of every frame in the order of the file, and its time."""
    command = ["ffprobe", "-v", "error", "-select_streams", "v", "-show_entries", "frame=pict_type,pts_time", "-of",
               "json", path]
    frames = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["frames"]
    return "".join(frame["pict_type"] for frame in frames), [float(frame["pts_time"]) for frame in frames]


@pytest.fixture
def rescaled(tool, tmp_path):
    """rescaled(name, *options): the script rescales tmp_path/train/a/<name>. Returns the new video's path."""

    def run(name, *options):
        (tmp_path / "list.txt").write_text(f"a/{name} 0\n")
        status, stdout, stderr = tool(*ARGS, *options)
        assert (status, stderr.count("error")) == (0, 0), stdout + stderr
        return tmp_path / "out/a" / name

    return run


@pytest.fixture
def failure(tool, tmp_path):
    """failure(name, *options): why the script does not rescale tmp_path/train/a/<name>."""

    def run(name, *options):
        (tmp_path / "list.txt").write_text(f"a/{name} 0\n")
        status, stdout, _ = tool(*ARGS, *options)
        assert status == 1 and not (tmp_path / "out/a" / name).exists()
        [line] = [line for line in stdout.splitlines() if line.startswith("[ERROR")]
        return line.partition(f"]: a/{name}: ")[2]

    return run


@needs_ffmpeg
@pytest.mark.parametrize(("size", "options", "expected"), [
    ("64x48", "", (340, 256)),
    ("48x64", "", (192, 256)),
    ("64x48", "--short_side 100", (132, 100)),
    ("48x64", "--short_side 100", (100, 132)),
    ("50x50", "--short_side 100", (100, 100)),
    ("75x50", "--short_side 66", (98, 66)),
    ("51x77", "--short_side 66 --for_clips", (66, 98)),
    ("51x77", "--for_clips", (168, 256)),
])
def test_sizes(rescaled, tmp_path, size, options, expected):
    # The source of the pictures makes even sizes only.
    film(tmp_path / "train/a/1.mkv", words=f"-vf scale={size.replace('x', ':')} -pix_fmt yuv444p -c:v ffv1")
    [video, _], _ = streams(rescaled("1.mkv", *options.split()))
    assert (video["width"], video["height"]) == expected


@needs_ffmpeg
@pytest.mark.parametrize("options", ["", "--for_clips"])
def test_a_rotated_video_becomes_upright(rescaled, tmp_path, options):
    film(tmp_path / "lying.mp4", "64x48")
    ffmpeg(f"-i {tmp_path / 'lying.mp4'} -c copy -metadata:s:v rotate=90", tmp_path / "train/a/1.mp4")
    [before, _], _ = streams(tmp_path / "train/a/1.mp4")
    if "side_data_list" not in before:
        pytest.skip("this ffmpeg does not write the rotation from a tag")
    [video, _], _ = streams(rescaled("1.mp4", "--short_side", "100", *options.split()))
    assert (video["width"], video["height"]) == (100, 132)
    assert "side_data_list" not in video and "rotate" not in video.get("tags", {})


@needs_ffmpeg
@pytest.mark.parametrize(("rate", "frames"), [(60, 30), (30, 30), (15, 30)])
def test_frame_rate(rescaled, tmp_path, rate, frames):
    film(tmp_path / "train/a/1.mp4", rate=rate)
    kinds, times = frame_types(rescaled("1.mp4", "--fps", "30"))
    assert len(kinds) == frames
    assert np.diff(times) == pytest.approx(1 / 30, abs=1e-5)


@needs_ffmpeg
def test_audio_is_copied_or_dropped(rescaled, tmp_path):
    film(tmp_path / "train/a/1.mp4")
    film(tmp_path / "train/a/2.mp4")
    assert [stream["codec_name"] for stream in streams(rescaled("1.mp4"))[0]] == ["h264", "aac"]
    shutil.rmtree(tmp_path / "out")
    assert [stream["codec_name"] for stream in streams(rescaled("2.mp4", "--drop_audio"))[0]] == ["h264"]


MP4, MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"


@needs_ffmpeg
@pytest.mark.parametrize(("name", "words", "container", "audio"), [
    ("1.mp4", "", MP4, "aac"),
    ("1.mov", "-c:a pcm_s16le", MP4, "pcm_s16le"),
    ("1.mkv", "-c:a flac", MATROSKA, "flac"),
    ("1.avi", "-c:v mpeg4 -bf 2 -c:a libmp3lame", MP4, "mp3"),
    ("1.avi", "-c:v mpeg4 -c:a pcm_s16le", MATROSKA, "pcm_s16le"),
    ("1.webm", "-c:v libvpx -c:a libopus", MP4, "opus"),
    ("1.mpg", "-r 25 -c:a mp2", MP4, "mp3"),
    ("1.wmv", "", MATROSKA, "wmav2"),
    ("1.ts", "-c:a s302m -strict -2 -ar 48000 -ac 2", MP4, None),  # this audio fits nowhere else
])
def test_for_clips_whatever_the_container(rescaled, tmp_path, name, words, container, audio):
    film(tmp_path / "train/a" / name, words=words)
    path = rescaled(name, "--for_clips")
    found, names = streams(path)
    assert names == container
    assert [stream["codec_name"] for stream in found] == ["h264", *filter(None, [audio])]
    kinds, times = frame_types(path)
    # ffmpeg may show the last frame of an AVI twice.
    assert len(kinds) - frame_count(tmp_path / "train/a" / name) in ((0, 1) if name == "1.avi" else (0,))
    assert kinds.count("B") > len(kinds) // 2
    assert np.all(np.diff(times) > 0)


@needs_ffmpeg
@pytest.mark.parametrize("pixels", ["yuv420p10le", "yuv444p", "yuvj420p", "gbrp"])
def test_for_clips_is_8_bit_420(rescaled, tmp_path, pixels):
    film(tmp_path / "train/a/1.mkv", words=f"-pix_fmt {pixels} -c:v ffv1" if pixels != "yuvj420p" else "-c:v mjpeg")
    [video, _], _ = streams(rescaled("1.mkv", "--for_clips"))
    assert video["pix_fmt"] == "yuv420p"


@needs_ffmpeg
def test_for_clips_of_a_gif(rescaled, tmp_path):
    ffmpeg(PICTURES.format("64x48", 10), tmp_path / "train/a/1.gif")
    path = rescaled("1.gif", "--for_clips")
    assert streams(path)[1] == MP4 and frame_count(path) == 10


@needs_ffmpeg
def test_for_clips_writes_pictures_and_sound_only(rescaled, tmp_path):
    (tmp_path / "1.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nHello\n")
    (tmp_path / "1.txt").write_text(";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1\nSTART=0\nEND=1\ntitle=One\n")
    film(tmp_path / "train/a/1.mov",
         words=f"-i {tmp_path / '1.srt'} -i {tmp_path / '1.txt'} -map 0 -map 1 -map 2 -c:s mov_text -map_chapters 3 "
               "-timecode 01:00:00:00")
    before = [stream["codec_type"] for stream in streams(tmp_path / "train/a/1.mov")[0]]
    assert {"subtitle", "data"} < set(before)
    assert [stream["codec_type"] for stream in streams(rescaled("1.mov", "--for_clips"))[0]] == ["video", "audio"]


@needs_ffmpeg
@pytest.mark.parametrize("options", ["", "--for_clips"])
def test_files_without_pictures(failure, tmp_path, options):
    ffmpeg(SOUND, tmp_path / "train/a/sound.mp4")
    assert failure("sound.mp4", *options.split()) == "has no video stream"
    ffmpeg("-f lavfi -i color -frames:v 1", tmp_path / "cover.png")
    ffmpeg(f"{SOUND} -i {tmp_path / 'cover.png'} -map 0 -map 1 -c:v mjpeg -disposition:v attached_pic",
           tmp_path / "train/a/cover.mp4")
    assert failure("cover.mp4", *options.split()) == "has no video stream"
    (tmp_path / "train/a/text.mp4").write_text("no video\n")
    assert failure("text.mp4", *options.split()).endswith("Invalid data found when processing input")


@needs_ffmpeg
@pytest.mark.parametrize(("name", "text", "kind"), [
    ("1.mp4", "ffconcat version 1.0\nfile good.mp4\n", "concat"),
    ("1.mp4", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\ngood.ts\n#EXT-X-ENDLIST\n", "hls"),
    ("1.nfo", "a/good.mp4 0\n" * 9, "tty"),
])
def test_playlists_are_refused(failure, tmp_path, name, text, kind):
    film(tmp_path / "train/a/good.mp4")
    film(tmp_path / "train/a/good.ts")
    (tmp_path / "train/a" / name).write_text(text)
    assert failure(name) == f"expected a video, got a text or playlist (to ffmpeg: {kind})"


@needs_ffmpeg
def test_what_the_container_cannot_hold_is_said(failure, tmp_path):
    film(tmp_path / "film.avi", words="-c:v mpeg4 -c:a pcm_s16le")
    (tmp_path / "train/a").mkdir(parents=True)
    (tmp_path / "film.avi").rename(tmp_path / "train/a/1.webm")
    assert failure("1.webm") == (
        "ffmpeg ended with status 1: [webm] Only VP8 or VP9 or AV1 video and Vorbis or Opus audio and WebVTT subtitles "
        "are supported for WebM."
    )
