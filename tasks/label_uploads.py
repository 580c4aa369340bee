"""Label files that people handed in through the dashboard, taken in as ``import_labels`` takes a file."""

from dataclasses import dataclass

from tasks.annotation import import_corrected_labels
from tasks.predictions import find_volume
from tasks.progress import say
from tomoforge.errors import InputError
from tomoforge.label_uploads import UPLOADS, Upload, Uploads
from tomoforge.storage import Workspace


@dataclass(frozen=True)
class TakenUpload:
    """An upload and the key of the labels made of it, or why there are none."""

    upload: Upload
    labels: str | None
    refused: str | None


def uploads_of(workspace: Workspace) -> Uploads:
    """The uploads of this workspace."""
    return Uploads(workspace.root / UPLOADS)


def take_uploads(workspace: Workspace) -> list[TakenUpload]:
    """Take in every upload that waits; one that is refused is refused alone, with the reason beside it."""
    uploads, taken = uploads_of(workspace), []
    for upload in uploads.waiting():
        try:
            made = import_corrected_labels(
                workspace,
                uploads.file_of(upload),
                find_volume(workspace, upload.volume),
                who=upload.who,
                check_orientation=upload.check_orientation,
            )
        except InputError as error:
            say(f"upload {upload.folder}: refused, {error}")
            uploads.settle(upload, refused=str(error))
            taken.append(TakenUpload(upload, None, str(error)))
            continue
        uploads.settle(upload, labels=made.key)
        taken.append(TakenUpload(upload, made.key, None))
    return taken
