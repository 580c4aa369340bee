"""What the checks of a scan have to say: a rule, the reason, the remedy; and the verdict on all of them."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tomoforge.errors import ScanError

Verdict = Literal["passed", "warned", "refused"]


@dataclass(frozen=True)
class Finding:
    """Something wrong: rule : its name; reason : what was found; remedy : what to do."""

    rule: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}; {self.remedy}"


@dataclass(frozen=True)
class ScanReport:
    """Outcome of the checks: passed is True where nothing refuses the scan; warnings do not."""

    passed: bool
    warnings: tuple[Finding, ...]
    refusals: tuple[Finding, ...]

    @classmethod
    def of(cls, warnings: Iterable[Finding], refusals: Iterable[Finding]) -> "ScanReport":
        """The report of these findings."""
        refused = tuple(refusals)
        return cls(not refused, tuple(warnings), refused)

    @property
    def verdict(self) -> Verdict:
        """ "passed" where nothing was found, "warned" where only warnings were, else "refused"."""
        if self.refusals:
            return "refused"
        return "warned" if self.warnings else "passed"

    def record(self) -> dict[str, Any]:
        """The report as JSON holds it: verdict, and rule, reason and remedy of each finding."""
        return {
            "verdict": self.verdict,
            "warnings": [asdict(finding) for finding in self.warnings],
            "refusals": [asdict(finding) for finding in self.refusals],
        }


class Refused(ScanError):
    """A scan, a file or a companion that is not taken; ``finding`` says which rule it broke and what to do."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding)  # the only argument, so that the exception travels between processes
        self.finding = finding

    def __str__(self) -> str:
        return str(self.finding)


def refusal(rule: str, reason: str, remedy: str) -> Refused:
    """The exception for a broken rule."""
    return Refused(Finding(rule, reason, remedy))
