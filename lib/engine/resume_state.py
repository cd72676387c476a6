"""What an exact continuation of a training needs besides the blobs of a checkpoint."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from core.messages import shown
from utils.errors import UserError


@dataclass
class ResumeState:
    """The `state` entry of a checkpoint.

    Attributes:
        train_position: records of the training stream handed out so far, those of precise BN included.
        val_position: records of the evaluation stream handed out by the evaluations that are complete.
        averages: Averages.state() of the results since the last evaluation.
        finished: whether the log line and evaluation of the last iteration, where due, are done as well.
        precise_bn: whether the running statistics of the last iteration are the precise ones.
    """

    train_position: int = 0
    val_position: int = 0
    averages: dict = field(default_factory=dict)
    finished: bool = True
    precise_bn: bool = False

    @classmethod
    def at(cls, start, batch_size: int) -> "ResumeState":
        """That of a StartPoint. A file of the Caffe2 program only says how many iterations are done.

        Raises:
            UserError: the state is not of this form.
        """
        if start.state is None:
            return cls(train_position=start.iteration * batch_size)
        if problem := _problem(start.state):
            raise UserError(f"{start.path}: state: {problem}: was this checkpoint written by another version of the "
                            "program?")
        return cls(**start.state)

    def as_dict(self) -> dict:
        """Plain values, for the checkpoint."""
        return asdict(self)


def _problem(state: object) -> str:
    """What a checkpoint's `state` is not, for a message; '' if it is one of this version."""
    if not isinstance(state, dict) or state.keys() != _FORMS.keys():
        found = ", ".join(sorted(map(str, state))) if isinstance(state, dict) else type(state).__name__
        return f"expected {', '.join(sorted(_FORMS))}, got {found or 'nothing'}"
    for name, (what, is_good) in _FORMS.items():
        if not is_good(state[name]):
            return f"{name}: expected {what}, got {shown(state[name])}"
    return ""


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_averages(value: object) -> bool:
    """Whether this is Averages.state(), or nothing."""
    if not isinstance(value, dict) or value.keys() not in (set(), {"sums", "weight"}):
        return False
    sums = value.get("sums", {})
    return _is_count(value.get("weight", 0)) and isinstance(sums, dict) and all(
        isinstance(name, str) and type(number) in (int, float) for name, number in sums.items())


_FORMS: dict[str, tuple[str, Callable[[object], bool]]] = {
    "train_position": ("a number of records", _is_count),
    "val_position": ("a number of records", _is_count),
    "averages": ("sums and their weight", _is_averages),
    "finished": ("True or False", _is_flag),
    "precise_bn": ("True or False", _is_flag),
}
