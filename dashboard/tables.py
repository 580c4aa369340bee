"""A published table, if it is what a chart takes it for."""

from collections.abc import Sequence

import pandas as pd

from dashboard import data
from tomoforge.errors import StorageError
from tomoforge.results import Published


def table_of(item: Published, name: str, columns: Sequence[str]) -> pd.DataFrame | None:
    """A table that has ``columns``, else None: not published, not to be read, or of another version.

    ``view.show_tables`` shows a table that no chart could use, or says why it cannot be read.
    """
    if name not in item.tables:
        return None
    try:
        frame = data.read_table(item, name)
    except StorageError:
        return None
    return frame if set(columns) <= set(frame.columns) else None
