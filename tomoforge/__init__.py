"""tomoforge: forged tomograms, segmentation and absorption correction. The science, no orchestrator."""

__version__ = "0.1.0"
