"""What is declared about one option, and the check that follows from it."""

from dataclasses import dataclass
from typing import Any

from core.messages import ConfigError, shown


@dataclass(frozen=True)
class Option:
    """One option. Its type is that of the default; a default of None accepts any type.

    Attributes:
        default: the value without a file or command line.
        help: what it means, in one sentence.
        low: inclusive lower bound of a number, or of every number in a list.
        above: exclusive lower bound of a number.
        high: inclusive upper bound of a number.
        choices: the values allowed; empty if the code that implements them checks them.
        items: type of the numbers in a list, int or float; None: the elements are not checked here.
        interval: the list holds exactly two numbers, the second not below the first.
        nullable: None is allowed. (Files and command lines may assign None to any option.)
        unused: accepted, so that legacy files and command lines keep working, but without effect and unchecked.
    """

    default: Any
    help: str
    low: float | None = None
    above: float | None = None
    high: float | None = None
    choices: tuple[Any, ...] = ()
    items: type | None = None
    interval: bool = False
    nullable: bool = False
    unused: bool = False

    def check(self, key: str, value: Any) -> None:
        """Raise ConfigError unless `value`, which has the default's type or is None, is allowed."""
        if self.unused or (value is None and self.nullable):
            return
        expected = self._expected(value)
        if expected:
            raise ConfigError(f"{key}: expected {expected}, got {shown(value)}")

    def _expected(self, value: Any) -> str | None:
        """What was expected in place of `value`; None if it is allowed."""
        if isinstance(self.default, bool):
            return "True or False" if value is None else None
        if isinstance(self.default, str) and value is None:
            return "text"
        if self.choices:
            return None if value in self.choices else f"one of {', '.join(map(str, self.choices))}"
        if self.items:
            return self._expected_list(value)
        if isinstance(self.default, (int, float)):
            return self._expected_number(value)
        return None

    def _expected_number(self, value: float | None) -> str | None:
        if value is None or not _is_usable(value) or self._is_too_low(value):
            return f"{'a number' if isinstance(self.default, float) else 'an integer'}{self._bounds_below()}"
        return f"a number <= {self.high}" if self.high is not None and value > self.high else None

    def _expected_list(self, value: Any) -> str | None:
        plural = "integers" if self.items is int else "numbers"
        good = isinstance(value, list) and all(map(self._is_good_item, value))
        if not self.interval:
            return None if good else f"a list of {plural}{self._bounds_below()}"
        good = good and len(value) == 2 and value[0] <= value[1]
        return None if good else f"two {plural}, {self.low} <= low <= high"

    def _is_good_item(self, item: Any) -> bool:
        right_type = isinstance(item, int if self.items is int else (int, float)) and not isinstance(item, bool)
        return right_type and _is_usable(item) and not self._is_too_low(item)

    def _is_too_low(self, number: float) -> bool:
        return (self.low is not None and number < self.low) or (self.above is not None and number <= self.above)

    def _bounds_below(self) -> str:
        if self.above is not None:
            return f" > {self.above}"
        return "" if self.low is None else f" >= {self.low}"


def _is_usable(number: float) -> bool:
    return abs(number) < 2**63  # excludes inf, NaN, and integers that overflow later
