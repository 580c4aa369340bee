"""The one exception tree. Every message names the argument, what was expected, what came, the next move."""


class TomoforgeError(Exception):
    """Base of everything that tomoforge raises on purpose."""


class InputError(TomoforgeError, ValueError):
    """An argument, a file or a setting given by the caller cannot be used. Trying again will not help."""


class ScanError(InputError):
    """A scan is refused: broken, incomplete, or missing what nobody may guess."""


class MaterialError(InputError):
    """A material is unknown, or its composition, density or energy lies outside the tables."""


class ConfigError(InputError):
    """A configuration has an unknown key or a value out of bounds."""


class StageError(TomoforgeError, RuntimeError):
    """A component (Blender, training, a reconstruction) ran and failed."""


class WorkerDiedError(StageError):
    """A worker process was killed, crashed, or hung and was ended: an accident, not a verdict on its input."""


class SampleRejectedError(StageError):
    """A forged sample fails a quality gate. ``reason`` is a short name that a set's rejections are counted by."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple:
        return type(self), (self.reason, str(self))


class MissingComponentError(TomoforgeError, RuntimeError):
    """Something optional was asked for and is not installed or not present on this machine."""


class StorageError(TomoforgeError, RuntimeError):
    """An artefact in the workspace is missing, incomplete or altered."""
