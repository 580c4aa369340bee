"""Opening a page as Streamlit runs it, without a browser, and all that it says."""

from pathlib import Path

from streamlit.testing.v1 import AppTest


def open_stage(app: Path, page: str, **address: str) -> AppTest:
    """Run the page ``stages/<page>.py`` and see that it ended as a page, not as an error."""
    at = AppTest.from_file(app, default_timeout=120)
    at.switch_page(f"stages/{page}.py")
    for name, value in address.items():
        at.query_params[name] = value
    at.run()
    assert not at.exception
    assert not any("could not be drawn" in box.value for box in at.error)
    return at


def said(at: AppTest) -> str:
    """All text of the page, escapes of Markdown and of addresses taken out."""
    boxes = (*at.error, *at.warning, *at.info, *at.markdown, *at.caption, *at.subheader)
    return "\n".join(box.value for box in boxes).replace("\\", "").replace("\u2060", "")
