"""Prefect tasks: a file a stage. A task loads, makes one library call, stores; it adds no science."""
