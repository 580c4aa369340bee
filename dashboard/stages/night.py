"""The first page: what came in since yesterday, what was made of it, and first of all what to distrust."""

from dashboard.night_page import show

show()
