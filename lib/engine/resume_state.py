"""What an exact continuation of a training needs besides the blobs of a checkpoint."""

from dataclasses import asdict, dataclass, field, fields

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
        names = {field.name for field in fields(cls)}
        if not isinstance(start.state, dict) or start.state.keys() != names:
            raise UserError(f"{start.path}: state: expected {', '.join(sorted(names))}: was this checkpoint written by "
                            "another version of the program?")
        return cls(**start.state)

    def as_dict(self) -> dict:
        """Plain values, for the checkpoint."""
        return asdict(self)
