"""Habits of protein crystals: cell, point group, forms, and where they were described.

Distances are relative; a recipe varies and scales them. Cells are from the cited work, made to fit
the point group. Faces that the source does not rank are idealised to plausible distances.
"""

from dataclasses import dataclass

from tomoforge.samples.crystal import Miller, Polyhedron, crystal_polyhedron


@dataclass(frozen=True)
class Habit:
    """Shape of a crystal up to its size.

    cell : a, b, c [Å], α, β, γ [°]; forms : pairs of (h, k, l) and relative central distance
    """

    name: str
    cell: tuple[float, float, float, float, float, float]
    point_group: str
    forms: tuple[tuple[Miller, float], ...]

    def polyhedron(self) -> Polyhedron:
        """The solid with the relative distances taken as metres."""
        return crystal_polyhedron(self.cell, self.point_group, dict(self.forms))


PROTEIN_HABITS: tuple[Habit, ...] = (
    # Tetragonal hen egg-white lysozyme, P4₃2₁2. Durbin & Feher, J. Cryst. Growth 76 (1986) 583.
    Habit(
        "lysozyme_tetragonal",
        (79.1, 79.1, 37.9, 90, 90, 90),
        "422",
        (((1, 1, 0), 1.0), ((1, 0, 1), 1.05)),
    ),
    # Thaumatin I, P4₁2₁2, bipyramids. Malkin, Kuznetsov, Glantz & McPherson, J. Phys. Chem. 100
    # (1996) 11736.
    Habit(
        "thaumatin",
        (58.0, 58.0, 151.0, 90, 90, 90),
        "422",
        (((1, 0, 1), 1.0), ((1, 1, 0), 1.25)),
    ),
    # Cubic insulin, I2₁3, rhombic dodecahedra. Gursky, Li, Badger & Caspar, Biophys. J. 61 (1992)
    # 604.
    Habit("insulin_cubic", (78.9, 78.9, 78.9, 90, 90, 90), "23", (((1, 1, 0), 1.0),)),
    # Two-zinc insulin, R3 on hexagonal axes, rhombohedra made of two polar trigonal pyramids.
    # Baker et al., Phil. Trans. R. Soc. B 319 (1988) 369 (cell).
    Habit(
        "insulin_rhombohedral",
        (82.5, 82.5, 34.0, 90, 90, 120),
        "3",
        (((1, 0, 1), 1.0), ((-1, 0, -1), 1.0), ((0, 0, 1), 1.1), ((0, 0, -1), 1.2)),
    ),
    # Horse-spleen apoferritin, F432, octahedra. Yau, Petsev, Thomas & Vekilov, J. Mol. Biol. 303
    # (2000) 667.
    Habit(
        "apoferritin",
        (184.0, 184.0, 184.0, 90, 90, 90),
        "432",
        (((1, 1, 1), 1.0), ((1, 0, 0), 1.4)),
    ),
    # Glucose isomerase, I222. Sleutel, Willaert, Gillespie, Evrard, Wyns & Maes, Cryst. Growth Des.
    # 9 (2009) 497.
    Habit(
        "glucose_isomerase",
        (93.9, 99.7, 102.9, 90, 90, 90),
        "222",
        # Three prisms: none closes alone.
        (((1, 1, 0), 1.0), ((1, 0, 1), 1.0), ((0, 1, 1), 1.1)),
    ),
    # Sperm-whale myoglobin, P2₁, plates on (001). Kendrew & Parrish, Proc. R. Soc. A 238 (1957)
    # 305.
    Habit(
        "myoglobin",
        (64.6, 31.3, 34.8, 90, 105.8, 90),
        "2",
        (((0, 0, 1), 0.6), ((1, 1, 0), 1.0), ((1, -1, 0), 1.1), ((1, 0, 0), 1.1)),
    ),
    # Thermolysin, P6₁22, hexagonal rods. Matthews et al., Nature New Biol. 238 (1972) 37 (cell).
    Habit(
        "thermolysin",
        (94.1, 94.1, 131.4, 90, 90, 120),
        "622",
        (((1, 0, 0), 0.55), ((1, 0, 1), 1.2)),
    ),
    # Bacteriorhodopsin, P6₃, hexagonal plates, polar. Landau & Rosenbusch, PNAS 93 (1996) 14532.
    Habit(
        "bacteriorhodopsin",
        (61.0, 61.0, 110.0, 90, 90, 120),
        "6",
        (((1, 0, 0), 1.0), ((0, 0, 1), 0.4), ((0, 0, -1), 0.5)),
    ),
    # Triclinic hen egg-white lysozyme, P1. Steinrauf, Acta Cryst. 12 (1959) 77 (cell); opposite
    # faces grow at different rates: Heijna, van Enckevort & Vlieg, Cryst. Growth Des. 8 (2008) 270.
    Habit(
        "lysozyme_triclinic",
        (27.3, 32.0, 34.3, 88.5, 108.5, 111.9),
        "1",
        (
            *(((1, 0, 0), 0.8), ((-1, 0, 0), 0.9), ((0, 1, 0), 1.0)),
            *(((0, -1, 0), 1.0), ((0, 0, 1), 1.0), ((0, 0, -1), 0.8)),
            *(((0, 1, -1), 1.1), ((0, -1, 1), 1.1)),
        ),
    ),
)
