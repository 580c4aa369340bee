"""The entry of the dashboard: ``streamlit run dashboard/app.py`` from the repository's root."""

import logging
import sys
from pathlib import Path

import streamlit as st

# `streamlit run` puts this file's folder on the path, not the root that the imports start from.
_ROOT = str(Path(__file__).resolve().parents[1])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

log = logging.getLogger("dashboard")

st.set_page_config(page_title="tomoforge", layout="wide", initial_sidebar_state="expanded")

# A page's address is its file's name. No icons: a page's icon becomes the tab's favicon, which
# Streamlit fetches from the internet.
page = st.navigation(
    [
        st.Page("stages/night.py", title="Night", default=True),
        st.Page("stages/run.py", title="Runs"),
        st.Page("stages/scan.py", title="Scan"),
        st.Page("stages/forge.py", title="Forge"),
        st.Page("stages/models.py", title="Models"),
        st.Page("stages/absorption.py", title="Absorption"),
        st.Page("stages/annotate.py", title="Annotate"),
    ]
)

with st.sidebar:
    st.caption("What the flows have published, and what people decide of it. Reload for newer results.")

try:
    page.run()
except Exception:
    # The one place that catches all: a user reads a sentence, the traceback goes to the log.
    log.exception("the page %s could not be drawn", page.title)
    st.error(
        "This page could not be drawn. The reason is in the log of the dashboard; "
        "the other pages are not affected.",
        icon=":material/error:",
    )
