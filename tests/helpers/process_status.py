"""What Linux tells about a process in /proc/PID/status (proc(5))."""


def status_of(pid):
    """{field: text}, such as State. Raises FileNotFoundError if there is no such process."""
    with open(f"/proc/{pid}/status") as lines:
        return dict(line.split(":", 1) for line in lines)


def catches(pid, number):
    """Whether a process has a handler for a signal. Before that, the signal ends it."""
    return bool(int(status_of(pid)["SigCgt"], 16) >> (number - 1) & 1)
