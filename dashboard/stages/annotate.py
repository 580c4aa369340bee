"""What is worth annotating next, what people decided, and corrected labels on their way in."""

from dashboard.annotate_view import show_queue
from dashboard.stage import show_stage

show_stage(
    "Annotate",
    "Volumes ranked by what their labels would teach the segmenter; what people decide of them is on the record.",
    ["annotation_queues"],
    body=show_queue,
)
