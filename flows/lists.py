"""Lists as people write them on the command line: parted by commas."""

from typing import Annotated

from pydantic import BeforeValidator


def listed(value: object) -> object:
    """The parts of a text; anything else as it is."""
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


Names = Annotated[tuple[str, ...], BeforeValidator(listed)]
