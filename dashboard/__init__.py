"""The read-only dashboard: shows what lies under ``published/`` and nothing else."""
