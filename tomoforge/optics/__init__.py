"""Wave optics of a scan: materials, thickness, propagation, detector."""
