"""Mother liquors: water with salts, polymers and cryoprotectants, at a density modelled from what is dissolved.

A volume of liquor holds what is dissolved in it (given) and as much water as fits (found): each solute takes
up its apparent specific volume, water the rest. For salts and sucrose that volume depends on concentration
(Laliberté 2009, fitted to measured densities; 1.4 kg/m³ rms in 2004's edition); for the others it is one number.
Concentrations are those of a laboratory's recipe at 20 °C, per volume of finished solution.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scipy.optimize import brentq

from tomoforge.errors import MaterialError
from tomoforge.optics.refraction import Material, blend, mixture, molar_mass

TEMPERATURE_C = 20.0
WATER_DENSITY = 998.2071  # [kg/m³] at 20 °C: Tanaka et al., Metrologia 38, 301 (2001)

# A mean protein (1.35 g/cm³, partial specific volume 0.74 cm³/g; Matthews, J. Mol. Biol.
# 33, 491 (1968); Fischer et al., Protein Sci. 13, 2825 (2004)).
PROTEIN = "C100H159N27O32S"
PROTEIN_DENSITY = 1350.0


@dataclass(frozen=True)
class Solute:
    """What dissolves in water, and the volume that it takes up there.

    coefficients : Laliberté's c0…c4, or one constant apparent specific volume [m³/kg].
    limit : largest mass fraction of the data, among water and salts (Laliberté) or of all (one constant).
    source : where the volume comes from; "estimated" where no measured density of the solution is behind it.
    """

    formula: str
    coefficients: tuple[float, ...]
    limit: float
    source: str

    def specific_volume(self, dissolved: float) -> float:
        """Apparent specific volume [m³/kg] where salts are a mass fraction ``dissolved`` of salts and water."""
        if len(self.coefficients) == 1:
            return self.coefficients[0]
        c0, c1, c2, c3, c4 = self.coefficients
        # Laliberté (2009), t in °C.
        expansion = math.exp(1e-6 * (TEMPERATURE_C + c4) ** 2)
        return (dissolved + c2 + c3 * TEMPERATURE_C) / ((c0 * dissolved + c1) * expansion)


_LALIBERTE = "Laliberté, J. Chem. Eng. Data 54, 1725 (2009), fitted to measured densities"
_CRC = "CRC Handbook, aqueous solutions at 20 °C"
_PEG = (
    "densities of PEG 400 to 6000 in water: Eliassi, Modarress & Mansoori, J. Chem. Eng. Data 43, 719 (1998)"
)


def _salt(formula: str, limit: float, *coefficients: float) -> Solute:
    return Solute(formula, coefficients, limit, _LALIBERTE)


SOLUTES: dict[str, Solute] = {
    "ammonium_sulfate": _salt(
        "N2H8SO4", 0.4292, 618.2407507, 966.1281161, 0.6027062025, 0.001627902679, 667.5734206
    ),
    "ammonium_chloride": _salt(
        "NH4Cl", 0.4, 16.88821964, 318.5602930, 5.086556070, -0.01506165031, -1769.122372
    ),
    "sodium_chloride": _salt(
        "NaCl", 0.2659, -0.003241122237, 0.06363543359, 1.013713995, 0.01459510152, 3317.348544
    ),
    "potassium_chloride": _salt(
        "KCl", 0.2643, -0.8559289460, 6.040735713, 2.817874162, 0.02539246459, 2681.617235
    ),
    "lithium_chloride": _salt(
        "LiCl", 0.4539, 1777.711689, 208.0956759, 0.09240328974, -0.00009651381946, -303.2121222
    ),
    "magnesium_chloride": _salt(
        "MgCl2", 0.3238, -0.02150014233, 0.04412020839, 1.532275868, -0.009807850606, -3478.364969
    ),
    "calcium_chloride": _salt(
        "CaCl2", 0.5132, -9.728937471, 14.70053530, 4.190333415, 0.03974036270, 2708.127789
    ),
    "cadmium_chloride": _salt(
        "CdCl2", 0.5383, -0.09087947089, 0.2911586278, 7.382645476, -0.03185511174, -3477.515146
    ),
    "lithium_sulfate": _salt(
        "Li2SO4", 0.2603, 0.007114930135, 0.008692463848, 0.1516493497, 0.003608626474, 3458.251847
    ),
    "magnesium_sulfate": _salt(
        "MgSO4", 0.2682, 98.12016631, 59.26576473, -0.03034049821, 0.0005036192286, 1763.759423
    ),
    "sodium_bromide": _salt(
        "NaBr", 0.5482, 23.76593788, 210.7219428, 2.010234721, 0.01639412355, 1941.829080
    ),
    "sodium_iodide": _salt("NaI", 0.6285, 20.65805521, 58.26553672, 1.553258239, 0.01531813159, 2196.747559),
    "potassium_iodide": _salt(
        "KI", 0.6669, 278.9436401, 1407.619129, 2.501144237, 0.01385116328, 1387.541080
    ),
    "sodium_dihydrogen_phosphate": _salt(
        "NaH2PO4", 0.3571, 1614.752364, 1267.614492, 0.3310394801, 0.001253549066, 347.0401081
    ),
    "potassium_dihydrogen_phosphate": _salt(
        "KH2PO4", 0.2321, 0.1751270992, 0.05838010960, 0.1701945058, 0.003234400660, 3062.751450
    ),
    "dipotassium_hydrogen_phosphate": _salt(
        "K2HPO4", 0.181, 0.01021015704, 0.4771736273, 0.2720685774, 0.001841099520, 2889.864619
    ),
    "sodium_nitrate": _salt(
        "NaNO3", 0.4892, 22.34992648, 66.44786890, 0.9898883015, 0.009471650979, 1971.551463
    ),
    "sodium_acetate": _salt(
        "NaC2H3O2", 0.3171, 1732.570476, 83.54135233, 0.04004296802, 0.00004715696827, -274.9274125
    ),
    "sodium_formate": _salt(
        "NaCHO2", 0.4060, 757.6205420, 1317.081444, 0.7569153940, 0.003164687421, 687.3445364
    ),
    "sucrose": _salt("C12H22O11", 0.5066, 532.9198990, 13692.58815, 12.61272614, 0.02664158993, 649.0491868),
    # 1.0708 and 1.1492 g/cm³ at 10 and 20 % by mass.
    "sodium_citrate": Solute("Na3C6H5O7", (0.335e-3,), 0.25, _CRC),
    # 1.0470 and 1.0727 g/cm³ at 20 and 30 %.
    "glycerol": Solute("C3H8O3", (0.769e-3,), 0.6, _CRC),
    # 1.0241 and 1.0378 g/cm³ at 20 and 30 %.
    "ethylene_glycol": Solute("C2H6O2", (0.875e-3,), 0.6, _CRC),
    "peg": Solute("C2H4O", (0.836e-3,), 0.6, _PEG),
    "mpd": Solute("C6H14O2", (1.05e-3,), 0.6, "estimated: volume of the pure liquid (1.08) less contraction"),
    "dmso": Solute("C2H6OS", (0.89e-3,), 0.6, "estimated: volume of the pure liquid (0.91) less contraction"),
    "sodium_malonate": Solute(
        "Na2C3H2O4", (0.45e-3,), 0.5, "estimated: volume additivity of ions, no measured density"
    ),
}


def liquor(
    name: str,
    molar: Mapping[str, float] | None = None,
    *,
    partial_densities: Mapping[str, float] | None = None,
    cooling_factor: float = 1.0,
) -> Material:
    """An aqueous solution from a recipe.

    Parameters
    ----------
    molar : solute → concentration [mol/L of solution], e.g. ``{"ammonium_sulfate": 2.0}``.
    partial_densities : solute → mass in a volume of solution [kg/m³, which is g/L; 10 times % w/v], for what
        has no molar mass or is not weighed by it, e.g. ``{"peg": 200.0, "glycerol": 250.0}``.
    cooling_factor : density of the glass over that of the solution at 20 °C; 1 leaves it as mixed. Pure
        water swells to 0.94; cryoprotectant makes it shrink less or more than that: measured glass densities
        are in Tyree et al., Acta Cryst. D74, 471 (2018).

    Returns
    -------
    Material whose ``source`` says recipe, density model and which volumes are estimates.

    Raises
    ------
    MaterialError
        For a solute that is unknown or twice there, a concentration below zero or beyond the data.

    References
    ----------
    Laliberté & Cooper, J. Chem. Eng. Data 49, 1141 (2004); Laliberté, ibid. 54, 1725 (2009), coefficients.
    """
    masses = _recipe_masses(name, molar or {}, partial_densities or {})
    if not (math.isfinite(cooling_factor) and 0.8 <= cooling_factor <= 1.2):
        raise MaterialError(
            f"cooling_factor of {name} must be a ratio of densities, 0.8 to 1.2, got {cooling_factor!r}"
        )
    water = _water_that_fits(name, masses)
    parts = {SOLUTES[solute].formula: mass for solute, mass in masses.items()} | {"H2O": water}
    material = mixture(name, parts, _describe(masses))
    return material if cooling_factor == 1.0 else material.at_density(cooling_factor * material.density)


def _recipe_masses(name: str, molar: Mapping[str, float], partial: Mapping[str, float]) -> dict[str, float]:
    """Mass of each solute in a volume of solution [kg/m³]; what is there in no amount is left out."""
    unknown = sorted({*molar, *partial} - set(SOLUTES))
    if unknown:
        raise MaterialError(
            f"solutes of {name} are unknown: {', '.join(unknown)}; known are {', '.join(sorted(SOLUTES))}"
        )
    twice = sorted(set(molar) & set(partial))
    if twice:
        raise MaterialError(f"solutes of {name} are given both molar and by mass: {', '.join(twice)}")
    # 1 mol/L = 1000 mol/m³.
    masses = {s: 1e3 * amount * molar_mass(SOLUTES[s].formula) for s, amount in molar.items()} | dict(partial)
    for solute, mass in masses.items():
        if not (math.isfinite(mass) and mass >= 0):
            raise MaterialError(
                f"concentration of {solute} in {name} must be zero or more, got {mass!r} kg/m³"
            )
    return {solute: mass for solute, mass in masses.items() if mass > 0}


def _water_that_fits(name: str, masses: Mapping[str, float]) -> float:
    """Mass of water [kg/m³] that fills the volume which the solutes leave."""
    salt = sum(mass for solute, mass in masses.items() if len(SOLUTES[solute].coefficients) > 1)

    def overfull(water: float) -> float:
        dissolved = salt / (salt + water)
        return (
            water / WATER_DENSITY
            + sum(mass * SOLUTES[solute].specific_volume(dissolved) for solute, mass in masses.items())
            - 1
        )

    if not masses:
        return WATER_DENSITY
    # A little water (10 kg/m³) is left in any solution; more than the pure density fits beside no solute here
    # except MgSO4, whose ions contract it by 1 % at most.
    if overfull(10.0) > 0:
        raise MaterialError(
            f"solutes of {name} leave no room for water: {sum(masses.values()):.0f} kg/m³ in all; is a "
            "concentration in another unit?"
        )
    water = brentq(overfull, 10.0, 1.2 * WATER_DENSITY, xtol=1e-9)
    total = water + sum(masses.values())
    for solute, mass in masses.items():
        whole = salt + water if len(SOLUTES[solute].coefficients) > 1 else total
        if mass / whole > SOLUTES[solute].limit:
            raise MaterialError(
                f"{solute} in {name} is {mass / whole:.0%} by mass, beyond the data of its density "
                f"({SOLUTES[solute].limit:.0%}); give a measured density with mixture instead"
            )
    return float(water)


def _describe(masses: Mapping[str, float]) -> str:
    if not masses:
        return "pure water"
    recipe = ", ".join(f"{solute} {mass:.1f} g/L" for solute, mass in masses.items())
    sources = dict.fromkeys(SOLUTES[solute].source for solute in masses)
    return f"{recipe} in water at 20 °C; volumes: {'; '.join(sources)}"


def protein_crystal(
    name: str,
    solvent_fraction: float,
    solvent: Material,
    *,
    protein: str = PROTEIN,
    protein_density: float = PROTEIN_DENSITY,
) -> Material:
    """A protein crystal whose channels (``solvent_fraction`` of its volume) are filled with ``solvent``.

    protein : formula of the protein, whose sulfur (and selenium) matters at long wavelength;
    protein_density [kg/m³] of the molecule itself, the reciprocal of its partial specific volume.

    Raises MaterialError for a fraction outside 0–1.
    """
    if not 0 < solvent_fraction < 1:
        raise MaterialError(f"solvent_fraction must lie between 0 and 1, got {solvent_fraction!r}")
    molecule = mixture("protein", {protein: protein_density})
    return blend(
        name,
        {molecule: 1 - solvent_fraction, solvent: solvent_fraction},
        f"{1 - solvent_fraction:.0%} protein of {protein_density / 1000:.2f} g/cm³ by volume, rest {solvent.name}",
    )
