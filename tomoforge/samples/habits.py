"""Habits of protein crystals: cell, space group, forms, and where they come from.

Distances are relative; a recipe varies and scales them. A source seldom ranks its faces, so every
distance here is chosen to give the usual outline; ``faces`` says whether the forms themselves are named in
the source or chosen too. Chosen forms follow the law of Bravais, Friedel, Donnay and Harker (the lattice
planes that are farthest apart come first, extinctions counted) or the outline that is known of the crystals.

References: J. D. H. Donnay, D. Harker, Am. Mineral. 22 (1937) 446; cells from the entries of the Protein
Data Bank or the papers named, made to fit the space group.
"""

from dataclasses import dataclass

import numpy as np

from tomoforge.samples.crystal import Miller, Polyhedron, crystal_polyhedron

# What ``Habit.faces`` may say.
FACES: tuple[str, ...] = ("described", "idealised")


@dataclass(frozen=True)
class Habit:
    """Shape of a crystal up to its size.

    cell : a, b, c [Å], α, β, γ [°]
    point_group : Hermann–Mauguin symbol, that of the space group's rotations
    forms : pairs of (h, k, l) and relative central distance; polar groups list both ends of an axis
    space_group : Hermann–Mauguin symbol as gemmi writes it ('P 43 21 2', 'R 3:H'); '' where unknown
    faces : 'described' where the source names all forms but those that it says are added, else 'idealised'
    source : what the cell and the forms were taken from
    """

    name: str
    cell: tuple[float, float, float, float, float, float]
    point_group: str
    forms: tuple[tuple[Miller, float], ...]
    space_group: str = ""
    faces: str = "idealised"
    source: str = ""

    def polyhedron(self) -> Polyhedron:
        """The solid with the relative distances taken as metres."""
        return crystal_polyhedron(self.cell, self.point_group, dict(self.forms))

    @property
    def aspect(self) -> float:
        """Greatest distance between two corners over the least width across a face (1.73 for a cube)."""
        solid = self.polyhedron()
        return solid.diameter / float(np.ptp(solid.vertices @ solid.normals.T, axis=0).min())


PROTEIN_HABITS: tuple[Habit, ...] = (
    # A square prism under two square pyramids turned by 45°: twelve faces.
    Habit(
        "lysozyme_tetragonal",
        (79.1, 79.1, 37.9, 90.0, 90.0, 90.0),
        "422",
        (((1, 1, 0), 1.0), ((1, 0, 1), 1.05)),
        space_group="P 43 21 2",
        faces="described",
        source="Hen egg white. Cell, {110} and {101}: Tsekova, Cryst. Growth Des. 9 (2009) 1312",
    ),
    # Along the short a axis.
    Habit(
        "lysozyme_orthorhombic",
        (30.56, 58.99, 68.26, 90.0, 90.0, 90.0),
        "222",
        (((0, 1, 1), 1.0), ((0, 0, 1), 1.15), ((1, 0, 1), 1.6), ((1, 1, 0), 1.64)),
        space_group="P 21 21 21",
        source="Hen egg white. Cell: PDB 1JJ1. Forms by spacing of their planes",
    ),
    # Thick laths along a; the two ends of the polar b axis differ.
    Habit(
        "lysozyme_monoclinic",
        (27.94, 62.73, 60.25, 90.0, 90.76, 90.0),
        "2",
        (
            *(((0, 0, 1), 1.0), ((0, 1, 1), 1.39), ((0, -1, -1), 1.5), ((0, 1, 0), 1.6)),
            *(((0, -1, 0), 1.75), ((1, 0, 0), 2.6), ((1, 0, 1), 2.5), ((1, 0, -1), 2.4)),
        ),
        space_group="P 1 21 1",
        source="Hen egg white. Cell: PDB 1HF4. Forms by spacing of their planes; ends of a polar axis grow "
        "at different rates: Heijna, van Enckevort & Vlieg, Cryst. Growth Des. 8 (2008) 270",
    ),
    Habit(
        "lysozyme_triclinic",
        (27.23, 31.97, 34.27, 88.44, 108.62, 111.71),
        "1",
        (
            *(((1, 0, 0), 1.15), ((-1, 0, 0), 1.3), ((0, 1, 0), 1.1), ((0, -1, 0), 1.05)),
            *(((0, 0, 1), 1.0), ((0, 0, -1), 0.85), ((1, -1, 0), 1.38), ((-1, 1, 0), 1.3)),
            *(((0, 1, -1), 1.4), ((0, -1, 1), 1.4), ((1, 0, -1), 1.39), ((-1, 0, 1), 1.45)),
        ),
        space_group="P 1",
        source="Hen egg white. Cell: PDB 1V7S. Forms by spacing of their planes; opposite faces grow at "
        "different rates: Heijna, van Enckevort & Vlieg, Cryst. Growth Des. 8 (2008) 270",
    ),
    # Long square bipyramids, the girdle's corners cut by a narrow prism.
    Habit(
        "thaumatin",
        (57.85, 57.85, 150.13, 90.0, 90.0, 90.0),
        "422",
        (((1, 0, 1), 1.0), ((1, 1, 0), 1.35)),
        space_group="P 41 21 2",
        source="Thaumatin I. Cell: PDB 1RQW. Outline: square bipyramids",
    ),
    # Stouter than thaumatin: bipyramids with a broad prism.
    Habit(
        "proteinase_k",
        (68.23, 68.23, 108.14, 90.0, 90.0, 90.0),
        "422",
        (((1, 0, 1), 1.0), ((1, 1, 0), 1.02)),
        space_group="P 43 21 2",
        source="Cell: PDB 6K2R; space group also in Betzel et al., Biochemistry 40 (2001) 3080. Forms by "
        "spacing of their planes",
    ),
    # Hexagonal rods.
    Habit(
        "thermolysin",
        (93.42, 93.42, 129.92, 90.0, 90.0, 120.0),
        "622",
        (((1, 0, 0), 0.55), ((1, 0, 1), 1.2)),
        space_group="P 61 2 2",
        source="Cell: PDB 4D91. Outline: hexagonal rods",
    ),
    # One rhombohedron is larger than the other: the axis is three-fold only.
    Habit(
        "trypsin_trigonal",
        (54.78, 54.78, 108.58, 90.0, 90.0, 120.0),
        "32",
        (((1, 0, 0), 0.8), ((1, 0, 1), 1.05), ((0, 1, 1), 1.2), ((0, 0, 1), 1.25)),
        space_group="P 31 2 1",
        faces="described",
        source="Bovine. Cell: PDB 1Y5A. {001}, {100}, {101}: Plomp, McPherson, Larson & Malkin, "
        "J. Phys. Chem. B 105 (2001) 542; {011} added",
    ),
    Habit(
        "trypsin_orthorhombic",
        (54.61, 58.56, 66.86, 90.0, 90.0, 90.0),
        "222",
        (((1, 1, 0), 0.7), ((0, 1, 1), 1.15), ((1, 0, 1), 1.2)),
        space_group="P 21 21 21",
        source="Bovine. Cell: PDB 7BS6. {110}: Plomp, McPherson, Larson & Malkin, J. Phys. Chem. B 105 "
        "(2001) 542; the forms that close it by spacing of their planes",
    ),
    # Rhombic dodecahedra.
    Habit(
        "insulin_cubic",
        (77.9, 77.9, 77.9, 90.0, 90.0, 90.0),
        "23",
        (((1, 1, 0), 1.0),),
        space_group="I 21 3",
        source="Zinc-free. Cell: PDB 2BN1. Outline: rhombic dodecahedra, as by spacing of their planes",
    ),
    # Two polar three-faced pyramids make a flat rhombohedron, the tips cut off.
    Habit(
        "insulin_rhombohedral",
        (82.5, 82.5, 34.0, 90.0, 90.0, 120.0),
        "3",
        (((1, 0, 1), 1.0), ((-1, 0, -1), 1.1), ((0, 0, 1), 0.85), ((0, 0, -1), 1.0)),
        space_group="R 3:H",
        source="Two-zinc, pig. Cell: PDB 4INS, Baker et al., Phil. Trans. R. Soc. B 319 (1988) 369. Outline: "
        "flat rhombohedra, Nature 140 (1937) 149",
    ),
    # Octahedra.
    Habit(
        "apoferritin",
        (184.0, 184.0, 184.0, 90.0, 90.0, 90.0),
        "432",
        (((1, 1, 1), 1.0), ((1, 0, 0), 1.4)),
        space_group="F 4 3 2",
        source="Horse spleen. Cell: PDB 1IER. Outline: octahedra, as by spacing of their planes",
    ),
    # Nearly a rhombic dodecahedron.
    Habit(
        "glucose_isomerase",
        (93.88, 99.64, 102.90, 90.0, 90.0, 90.0),
        "222",
        (((1, 1, 0), 0.9), ((1, 0, 1), 1.0), ((0, 1, 1), 1.1)),
        space_group="I 2 2 2",
        faces="described",
        source="Streptomyces rubiginosus. Cell: Carrell et al., J. Biol. Chem. 259 (1984) 3230. {101}: Suzuki "
        "et al., Crystals 9 (2019) 90; {110}: 'Highly purified glucose isomerase crystals under microgravity "
        "conditions grow as fast as those on the ground do', ChemRxiv (2020); {011} added",
    ),
    # Drawn out along c.
    Habit(
        "concanavalin_a",
        (89.9, 87.2, 63.1, 90.0, 90.0, 90.0),
        "222",
        (((1, 1, 0), 0.85), ((1, 0, 1), 1.21), ((0, 1, 1), 1.22), ((1, 0, 0), 1.1)),
        space_group="I 2 2 2",
        source="Jack bean. Cell: 'The structure of concanavalin A at 4 Å resolution' (1971). Forms by spacing "
        "of their planes",
    ),
    # Plates on (001); the two ends of the polar b axis differ.
    Habit(
        "ribonuclease_a",
        (30.9, 38.8, 54.06, 90.0, 106.0, 90.0),
        "2",
        (
            *(((0, 0, 1), 0.8), ((0, 1, 1), 1.6), ((0, -1, -1), 1.75)),
            *(((1, 0, 0), 1.75), ((1, 0, -1), 1.76), ((1, 1, 0), 2.2), ((1, -1, 0), 2.2)),
        ),
        space_group="P 1 21 1",
        source="Bovine pancreas. Cell: 'The crystal structure of ribonuclease. I', Proc. R. Soc. A 207 (1951) "
        "496, wet crystals. Forms by spacing of their planes",
    ),
    # Plates on (001); the two ends of the polar b axis differ.
    Habit(
        "myoglobin",
        (64.5, 30.9, 34.7, 90.0, 106.0, 90.0),
        "2",
        (((0, 0, 1), 0.45), ((1, 1, 0), 1.0), ((1, -1, 0), 1.1), ((1, 0, 0), 1.1)),
        space_group="P 1 21 1",
        source="Sperm whale, met form, type A. Cell: PDB 1MBN. Outline: plates",
    ),
    # Hexagonal plates; the two sides of the polar axis differ.
    Habit(
        "bacteriorhodopsin",
        (60.63, 60.63, 108.16, 90.0, 90.0, 120.0),
        "6",
        (((1, 0, 0), 1.0), ((0, 0, 1), 0.25), ((0, 0, -1), 0.3)),
        space_group="P 63",
        source="Grown in lipidic cubic phase. Cell: PDB 1C3W, Luecke et al., J. Mol. Biol. 291 (1999) 899. "
        "Outline: hexagonal plates",
    ),
)
