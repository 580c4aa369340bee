"""Real | simulated | difference, and how alike the scan is at each distance that was tried."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from tomoforge.pictures import grey_range, png_bytes


def difference_picture(
    real: np.ndarray, simulated: Sequence[tuple[str, np.ndarray]], unit: str, title: str, *, dpi: int = 100
) -> bytes:
    """A row for each simulation: the real image, the simulated one on the same greys, simulated − real.

    real : (y, x); simulated : (name, (y, x)) of each; unit : of the grey values, for the scales. All differences
    share one scale, symmetric about zero.
    """
    height = 3.0 * real.shape[0] / real.shape[1]
    figure = Figure(figsize=(10.5, (height + 0.45) * len(simulated) + 0.4), dpi=dpi, layout="constrained")
    figure.suptitle(title, fontsize=10)
    grid = figure.subplots(len(simulated), 3, squeeze=False)
    low, high = grey_range(real)
    differences = [image - real for _, image in simulated]
    most = float(np.percentile(np.abs(np.stack(differences)), 99.5)) or 1.0
    for axes, (name, image), difference in zip(grid, simulated, differences, strict=True):
        for one, picture, text in ((axes[0], real, "real"), (axes[1], image, name)):
            grey = one.imshow(picture, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            one.set_title(text, fontsize=9)
        figure.colorbar(grey, ax=axes[1], label=unit, shrink=0.85)
        shown = axes[2].imshow(difference, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
        axes[2].set_title(f"{name} − real", fontsize=9)
        figure.colorbar(shown, ax=axes[2], label=unit, shrink=0.85)
        for one in axes:
            one.set_xticks([])
            one.set_yticks([])
    return png_bytes(figure)


def distance_picture(distance_mm: Sequence[float], ssim: Sequence[float], psnr_db: Sequence[float]) -> bytes:
    """SSIM and PSNR of projections against the distance [mm] that the simulation assumed."""
    figure = Figure(figsize=(5.6, 3.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    order = np.argsort(distance_mm)
    x, similarity, noise = (np.asarray(values)[order] for values in (distance_mm, ssim, psnr_db))
    axes.semilogx(x, similarity, color="#0072B2", marker="o", label="SSIM")
    axes.set_xlabel("assumed propagation distance [mm]")
    axes.set_ylabel("SSIM of projections")
    right = axes.twinx()
    right.plot(x, noise, color="#D55E00", marker="s", linestyle="--", label="PSNR")
    right.set_ylabel("PSNR [dB]")
    lines = [*axes.get_lines(), *right.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], fontsize=8, loc="lower left")
    return png_bytes(figure)
