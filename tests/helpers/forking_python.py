"""A stand-in for Python in shell scripts: it has the zygote run the script, and behaves like the process that does.

    with forking_python(zygote, folder) as python:
        subprocess.run([python, script, ...])

The script runs with the words, environment, folder and output of the stand-in, which passes SIGTERM and SIGINT on to it
and ends with its status.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time

STAND_IN = """#!{python} -IS
import json, os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as there:
    there.connect({path!r})
    answers = there.makefile()
    request = dict(words=sys.argv[1:], environment=dict(os.environ), folder=os.getcwd(), pid=os.getpid())
    there.sendall(json.dumps(request).encode() + b"\\n")
    pid = int(answers.readline())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os.kill(pid, number))
    sys.exit(int(answers.readline()))
"""
PRELUDE = "import os; os.environ.clear(); os.environ.update({environment!r}); os.chdir({folder!r})"


@contextlib.contextmanager
def forking_python(zygote, folder):
    """Make the stand-in in a folder; its path."""
    path, stand_in = folder / "python.socket", folder / "python"
    stand_in.write_text(STAND_IN.format(python=sys.executable, path=str(path)))
    stand_in.chmod(0o755)
    lock = threading.Lock()  # of the zygote, which answers one request at a time

    def serve(client):
        with client, client.makefile("rw") as lines:
            request = json.loads(lines.readline())
            words = request["words"]
            while not words[0].endswith(".py"):  # options of Python
                words = words[1:]
            words[0] = os.path.join(request["folder"], words[0])
            output, errors = (f"/proc/{request['pid']}/fd/{stream}" for stream in (1, 2))
            with lock:
                run = zygote.start(words, output, PRELUDE.format(**request), errors=errors)
            print(run.pid, file=lines, flush=True)
            while run.status is None:
                with lock:
                    run.wait(0)
                time.sleep(0.02)
            print(run.status, file=lines, flush=True)

    def accept():
        with contextlib.suppress(OSError):  # closed
            while True:
                threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield stand_in
        finally:
            server.shutdown(socket.SHUT_RDWR)
