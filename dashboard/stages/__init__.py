"""The pages: one script a stage, run by Streamlit through ``dashboard/app.py``."""
