"""Writing files: what a reader, a dying process or something else under the final name may see."""

import os
import socket
import subprocess
import sys
import threading

import pytest

from utils.errors import UserError
from utils.files import atomic_file, atomic_write, check_writable, clear_leftovers, growing_file, temporary_name


def test_atomic_write(tmp_path):
    path = tmp_path / "file"
    with atomic_write(path, "w") as file:
        file.write("old")
        assert not path.exists()
    with pytest.raises(ZeroDivisionError), atomic_write(path, "w") as file:
        file.write("new")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
    with pytest.raises(UserError, match="cannot be written: No such"), atomic_write(tmp_path / "no/file"):
        pass
    with pytest.raises(FileNotFoundError), atomic_write(path):
        (tmp_path / "another").read_text()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_atomic_write_without_space(tmp_path, monkeypatch):
    full = open("/dev/full", "wb")  # noqa: SIM115
    monkeypatch.setattr("utils.files.open", lambda path, mode: full, raising=False)
    message = "x: cannot be written: No space left on device"
    with pytest.raises(UserError, match=message), atomic_write(tmp_path / "x") as file:
        file.write(b"text")
    assert os.listdir(tmp_path) == []


def test_a_growing_file(tmp_path):
    path, link = tmp_path / "rows", tmp_path / "link"
    path.write_text("old")
    link.symlink_to("rows")
    with pytest.raises(ZeroDivisionError), growing_file(link) as write:
        assert path.read_bytes() == b""
        write(b"one\n")
        write(b"two\n")
        assert path.read_bytes() == b"one\ntwo\n"
        raise ZeroDivisionError
    assert path.read_bytes() == b"one\ntwo\n" and link.is_symlink()
    with pytest.raises(UserError, match="no/file: cannot be written: No such"), growing_file(tmp_path / "no/file"):
        pass
    with pytest.raises(UserError, match="cannot be written: Is a directory"), growing_file(tmp_path):
        pass
    with pytest.raises(UserError, match="full: cannot be written: No space left"), growing_file("/dev/full") as write:
        write(b"text")


def test_a_growing_file_without_space_holds_what_was_written(tmp_path, monkeypatch):
    system_write = os.write

    def write_some(descriptor, content):
        if b"three" in bytes(content):
            return system_write(descriptor, content[:2])
        if b"ree" in bytes(content):
            raise OSError(28, "No space left on device")
        return system_write(descriptor, content)

    monkeypatch.setattr(os, "write", write_some)
    with pytest.raises(UserError, match="rows: cannot be written: No space"), growing_file(tmp_path / "rows") as write:
        write(b"one\n")
        write(b"three\n")
    assert (tmp_path / "rows").read_bytes() == b"one\n"


def test_a_file_that_could_not_be_written_later(tmp_path):
    check_writable(tmp_path / "file")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("old")
    check_writable(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "old"
    for path, reason in ((tmp_path / "no/file", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UserError, match=f"cannot be written: {reason}"):
            check_writable(path)


def test_a_link_stays_and_its_file_is_replaced_on_its_own_disk(tmp_path):
    (tmp_path / "disk").mkdir()
    link, target = tmp_path / "link", tmp_path / "disk" / "file"
    link.symlink_to("disk/file")
    for text in ("made", "replaced"):
        with atomic_write(link, "w") as file:
            file.write(text)
            assert [name.startswith(".file.") for name in os.listdir(target.parent) if name != "file"] == [True]
        assert link.is_symlink() and target.read_text() == text
    assert os.listdir(target.parent) == ["file"]
    assert sorted(os.listdir(tmp_path)) == ["disk", "link"]


def test_a_fifo_is_written_to(tmp_path):
    fifo, read = tmp_path / "fifo", []
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    with atomic_write(fifo) as file:
        file.write(b"text")
    reader.join()
    assert read == [b"text"] and fifo.is_fifo()
    assert os.listdir(tmp_path) == ["fifo"]


def test_a_device_is_written_to(tmp_path):
    (tmp_path / "link").symlink_to("/dev/null")
    for path in ("/dev/null", tmp_path / "link"):
        with atomic_write(path, "w") as file:
            file.write("text")
    assert (tmp_path / "link").is_symlink() and not os.path.isfile("/dev/null")
    with pytest.raises(UserError, match="/dev/full: cannot be written: No space"), atomic_write("/dev/full") as file:
        file.write(b"text")


PROGRAM = """
import sys
from utils.files import atomic_write
print("before")
with atomic_write(sys.argv[1], "w") as file:
    file.write("inside\\n")
print("after")
"""


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
@pytest.mark.parametrize("into", ["pipe", "file"])
def test_standard_output_is_written_to_in_order(repo, tmp_path, name, into):
    (tmp_path / "link").symlink_to("/dev/stdout")
    with open(tmp_path / "out", "w") as out:
        run = subprocess.run([sys.executable, "-c", PROGRAM, name], cwd=tmp_path, text=True, check=True,
                             stdout=subprocess.PIPE if into == "pipe" else out,
                             env=os.environ | {"PYTHONPATH": str(repo / "lib")})
    assert (run.stdout or (tmp_path / "out").read_text()) == "before\ninside\nafter\n"


@pytest.mark.parametrize("writer", [atomic_write, atomic_file])
def test_folders_and_circular_links_are_refused(tmp_path, writer):
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(UserError, match="folder: cannot be written: Is a directory"), \
            writer(tmp_path / "folder"):
        pytest.fail("too late")
    with pytest.raises(UserError, match="circle: cannot be written: Too many levels"), writer(tmp_path / "circle"):
        pytest.fail("too late")


def test_what_has_come_there_meanwhile_is_not_replaced(tmp_path):
    with pytest.raises(UserError, match="file: expected the name of a file to write, got a device, FIFO"), \
            atomic_write(tmp_path / "file"):
        os.mkfifo(tmp_path / "file")
    assert (tmp_path / "file").is_fifo() and os.listdir(tmp_path) == ["file"]


def test_a_writer_that_needs_a_name_does_not_replace_a_fifo(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UserError, match="got a device, FIFO or socket"), atomic_file(tmp_path / "fifo"):
        pytest.fail("too late")


def test_contents_are_on_disk_before_the_name_and_the_name_is_on_disk_at_the_end(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (done.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))),
                                                 sync(fd)))
    monkeypatch.setattr(os, "replace", lambda old, new: (done.append("replace"), replace(old, new)))
    with atomic_file(tmp_path / "file", ".txt") as partial:
        partial.write_text("text")
    assert done == [partial.name, "replace", tmp_path.name]
    assert (tmp_path / "file").read_text() == "text"


@pytest.mark.parametrize("name", ["a" * 255, "é" * 127, "name.with.dots", "a\nb", ".hidden"])
def test_names_of_any_length(tmp_path, name):
    with atomic_write(tmp_path / name) as file:
        file.write(b"text")
    assert os.listdir(tmp_path) == [name]


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left_by(process, name, host=None):
    """The temporary name that a process has given a file."""
    ours = temporary_name(name)
    return ours.replace(f".{os.getpid()}.", f".{process}.").replace(ours.split(".")[-3], host or ours.split(".")[-3])


def test_only_what_dead_processes_of_this_host_have_left_is_cleared(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "node-1.example.org")
    dead = dead_process()
    gone = [left_by(dead, "file"), left_by(dead, "file") + ".mp4", temporary_name("file")]
    stay = [left_by(1, "file"), left_by(os.getppid(), "file"), left_by(dead, "file", "node-2"), left_by(dead, "other"),
            ".file.swp", f".file.{dead}.tmp", "file.tmp"]
    for name in gone + stay:
        (tmp_path / name).touch()
    (tmp_path / gone[0]).unlink()
    (tmp_path / gone[0] / "inside").mkdir(parents=True)
    clear_leftovers(tmp_path, "file".__eq__)
    assert sorted(os.listdir(tmp_path)) == sorted(stay)


def test_a_file_that_this_process_is_writing_stays(tmp_path):
    with atomic_file(tmp_path / "file") as partial:
        partial.touch()
        clear_leftovers(tmp_path, lambda name: True)
        assert partial.exists()


def test_writing_a_file_clears_what_was_left_of_it(tmp_path):
    (tmp_path / left_by(dead_process(), "file")).write_text("half")
    with atomic_write(tmp_path / "file") as file:
        file.write(b"whole")
    assert os.listdir(tmp_path) == ["file"]
