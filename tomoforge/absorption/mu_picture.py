"""Picture of a measured µ: −ln T against path length, the fitted line, what was left out."""

import numpy as np
from matplotlib.figure import Figure

from tomoforge.absorption.mu_measurement import alone_fit, mu_from_alone_rays
from tomoforge.absorption.mu_rays import Rays
from tomoforge.pictures import png_bytes
from tomoforge.units import m_to_um

# Okabe–Ito: told apart with any colour vision.
_RAY, _OUTLIER, _LINE = "#0072B2", "#D55E00", "#000000"
_MOST_POINTS = 4000


def mu_fit_picture(
    rays: Rays, label: int, *, name: str | None = None, least_rays: int = 200, seed: int = 0
) -> bytes:
    """−ln T against the length in one material alone, with the fit, its interval and the outliers.

    rays : from ``collect_rays``; label : int; name : of the material; least_rays, seed : as of
    ``mu_from_alone_rays``. Returns PNG bytes. Raises InputError as that does.
    """
    estimate = mu_from_alone_rays(rays, label, least_rays=least_rays, seed=seed)
    found, fit = alone_fit(rays, label, seed=seed)
    length_um = m_to_um(1.0) * found.lengths[:, label]
    figure = Figure(figsize=(6.4, 4.4), dpi=120, layout="constrained")
    axes = figure.subplots()
    groups = (
        (~fit.outliers, _RAY, "rays"),
        (fit.outliers, _OUTLIER, f"outliers ({int(fit.outliers.sum())})"),
    )
    for mask, colour, text in groups:
        rows = np.flatnonzero(mask)
        rows = rows[:: max(1, -(-len(rows) // _MOST_POINTS))]
        axes.plot(
            length_um[rows],
            found.line_integrals[rows],
            ".",
            color=colour,
            markersize=3,
            alpha=0.5,
            label=text,
        )
    ends = np.array([0.0, float(length_um.max()) * 1.03])
    metres = ends / m_to_um(1.0)
    axes.plot(ends, estimate.mu * metres, color=_LINE, linewidth=1.6, label="fit through the origin")
    axes.fill_between(
        ends, estimate.low * metres, estimate.high * metres, color=_LINE, alpha=0.2, linewidth=0
    )
    axes.set_xlabel("length in the material alone  [µm]")
    axes.set_ylabel("−ln T")
    axes.set_xlim(0, ends[1])
    axes.set_title(
        f"{name or f'label {label}'}: µ = {estimate.mu:.5g} 1/m  (95 %: {estimate.low:.5g} … {estimate.high:.5g}), "
        f"{estimate.count} rays",
        fontsize="medium",
    )
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
    return png_bytes(figure)
