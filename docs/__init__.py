"""Documentation, and the pictures in it that are made by the code."""
