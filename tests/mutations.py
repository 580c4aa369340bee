"""Are the optics' tests awake? Puts one wrong sign, unit or factor at a time into a copy and runs its tests there.

    python -m tests.mutations [--only PATTERN] [--list]

By hand, a quarter of an hour; pytest does not collect it. PATTERN is a regular expression on a mutation as it is
listed. Prints for each whether it was caught, and by which test first; exit status 1 if any survived, was not found
in the source (which has moved on: rewrite the entry), or broke the program instead of its physics.
"""

import argparse
import contextlib
import importlib
import os
import re
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numba
import pytest

ROOT = Path(__file__).resolve().parents[1]
PRELOADED = (
    "algotom.prep.calculation", "algotom.prep.removal", "algotom.rec.reconstruction", "finufft", "h5py", "hdf5plugin",
    "hypothesis", "numpy", "matplotlib.figure", "scipy.fft", "scipy.interpolate", "scipy.ndimage", "scipy.optimize",
    "scipy.special", "scipy.stats", "skimage.filters", "skimage.metrics", "spekpy", "tifffile", "xraydb", "zarr",
)  # fmt: skip
# A program that cannot run proves nothing of its tests.
NO_PHYSICS = re.compile(r"(\w+\.)*(Name|Syntax|Import|Attribute|Type|Typing|UnboundLocal)Error")


@dataclass(frozen=True)
class Mutation:
    """A wrong text in the place of the right one, and the tests that must notice.

    file : below tomoforge; kind : what is wrong; tests : a file below tests/library, and words for pytest's -k.
    """

    file: str
    tests: str
    kind: str
    original: str
    wrong: str

    def __str__(self) -> str:
        pairs = zip(self.original.splitlines(), self.wrong.splitlines(), strict=True)
        changed = [(a.strip(), b.strip()) for a, b in pairs if a != b]
        texts = (" … ".join(side) for side in zip(*changed, strict=True))
        return f"{self.file:32} {self.kind:7} {' → '.join(texts)}"


@dataclass(frozen=True)
class Outcome:
    """What came of a mutation: verdict, and the first test that failed."""

    verdict: str
    test: str = ""


def preload() -> None:
    """Import once what all tests import, and wake numba up: the forked runs then start in a fraction of the time."""
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    numba.njit(lambda x: x + 1)(1)  # serial: a process that has started numba's threads must not be forked


def run_tests(folder: Path, cache: Path, tests: set[str]) -> Outcome:
    """Run tests in the copy until the first failure, in a process of their own."""
    arguments = ["-q", "-x", "--tb=line", "-p", "no:cacheprovider", "-p", "pytest_timeout"]
    arguments += sorted({f"tests/library/{one.partition(' ')[0]}" for one in tests})
    words = {one.partition(" ")[2] for one in tests}
    if len(words) == 1 and all(words):
        arguments += ["-k", *words]
    log = folder.with_name("log")
    child = os.fork()
    if child == 0:
        _become_pytest(folder, cache, log, arguments)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = log.read_text()
    if status == 0:
        return Outcome("SURVIVED")
    # A module may refuse to be imported at all: an ERROR without a test.
    failure = re.search(r"^(?:FAILED|ERROR) \S+?\.py(?:::(.+?))?(?: - (.*))?$", said, flags=re.M)
    if failure is None or NO_PHYSICS.match(failure[2] or ""):
        return Outcome("BROKEN", f"{status}: {(said.strip().splitlines() or [''])[-1]}")
    return Outcome("caught", failure[1] or f"at import: {failure[2]}")


def _become_pytest(folder: Path, cache: Path, log: Path, arguments: list[str]) -> NoReturn:
    """In a forked process: forget this checkout, run pytest in the copy with its words in ``log``, and end."""
    status = 3
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(folder)
        sys.path[:] = [str(folder), *(path for path in sys.path if path not in ("", str(ROOT)))]
        sys.dont_write_bytecode = True  # its stamps are whole seconds: too coarse to notice a mutation
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "tomoforge")]:
            del sys.modules[name]
        os.environ["COLUMNS"] = "400"  # the summary in one line
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # plugins that come with packages cost a second
        os.environ["PYTHONPATH"] = str(folder)  # of what the tests start themselves
        numba.config.CACHE_DIR = str(cache)  # type: ignore[attr-defined]
        status = int(pytest.main(arguments))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def try_mutation(mutation: Mutation, folder: Path, cache: Path) -> Outcome:
    """Put the mutation into the copy, run its tests, and take it out again."""
    path = folder / "tomoforge" / mutation.file
    text, stamp = path.read_text(), path.stat().st_mtime_ns
    if text.count(mutation.original) != 1:
        return Outcome("NOT FOUND", f"{text.count(mutation.original)} times in the source")
    path.write_text(text.replace(mutation.original, mutation.wrong))
    own = cache.with_name("numba of one mutation")
    try:
        if "compiled(" in text or "njit(" in text:  # keep the wrong kernels out of the others' cache
            shutil.copytree(cache, own)
            return run_tests(folder, own, {mutation.tests})
        return run_tests(folder, cache, {mutation.tests})
    finally:
        shutil.rmtree(own, ignore_errors=True)
        path.write_text(text)
        os.utime(path, ns=(stamp, stamp))  # numba goes by it


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only", default="", metavar="PATTERN", help="regular expression on a mutation as listed"
    )
    parser.add_argument("--list", action="store_true", help="list the mutations and run nothing")
    options = parser.parse_args()
    chosen = [mutation for mutation in mutations() if re.search(options.only, str(mutation))]
    if options.list or not chosen:
        print(*chosen, f"{len(chosen)} mutations", sep="\n")
        return 0 if chosen else 2
    with tempfile.TemporaryDirectory(prefix="mutations-") as temporary:
        folder, cache = Path(temporary, "copy"), Path(temporary, "numba")
        cache.mkdir()
        for name in ("tomoforge", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        preload()
        untouched = run_tests(folder, cache, {mutation.tests.partition(" ")[0] for mutation in chosen})
        if untouched.verdict != "SURVIVED":
            print(f"the tests fail without any mutation: {untouched.test}")
            return 1
        verdicts = []
        for mutation in chosen:
            outcome = try_mutation(mutation, folder, cache)
            verdicts.append(outcome.verdict)
            print(f"{outcome.verdict:9} {mutation}\n{'':10}{outcome.test}", flush=True)
    print(", ".join(f"{count} {verdict}" for verdict, count in Counter(verdicts).most_common()))
    return int(set(verdicts) != {"caught"})


def mutations() -> Iterator[Mutation]:
    """All mutations of the table, those of one file together."""
    for (file, tests), rows in TABLE.items():
        for kind, original, wrong, *words in rows:
            yield Mutation(file, " ".join([tests, *words]), kind, original, wrong)


# (file below tomoforge, tests below tests/library): kind, original, wrong, and words for -k where few tests will do.
TABLE: dict[tuple[str, str], list[tuple[str, ...]]] = {
    ("optics/refraction.py", "optics/test_materials.py"): [
        ("factor", "wavelength**2 / (2 * math.pi) * molecules", "wavelength**2 / (4 * math.pi) * molecules"),
        ("factor", "mu * wavelength / (4 * math.pi), mu)", "mu * wavelength / (2 * math.pi), mu)"),
        ("factor", "RADIUS * wavelength**2 /", "RADIUS * wavelength /"),
        ("factor", "scattering += count * f1", "scattering += f1"),
        ("factor", "sum(count * _atom(symbol)[1] for", "sum(_atom(symbol)[1] for"),
        ("factor", "/ molar_mass(formula) * _electrons(formula)", "/ molar_mass(formula)"),
        ("factor", "+ fraction * density\n    return mixture", "+ density\n    return mixture"),
        ("factor", "0.0) + self.density * fraction", "0.0) + fraction"),
        ("sign", "_atom(symbol)[0] + float(xraydb.f1", "_atom(symbol)[0] - float(xraydb.f1"),
        ("unit", "energy_ev = 1e3 * energy_kev", "energy_ev = energy_kev"),
        ("unit", "return f1, 0.1 * float", "return f1, 10.0 * float"),
        ("unit", "1e-3 * float(xraydb.atomic_mass", "1.0 * float(xraydb.atomic_mass"),
        ("unit", "AVOGADRO = 6.02214076e23", "AVOGADRO = 6.02214076e26"),
        ("physics", 'kind="total"', 'kind="photo"'),
    ],
    ("optics/materials.py", "optics/test_materials.py"): [
        ("unit", "cell_volume_a3 * 1e-30", "cell_volume_a3 * 1e-27"),
        ("factor", "return formula_units * molar_mass", "return molar_mass"),
        ("factor", "3**0.5 / 2 * a**2 * c, f", "a**2 * c, f"),
        ("inverse", "carbon_share / carbon.density", "carbon_share * carbon.density"),
        ("factor", "(1 - porosity) * volume / whole", "volume / whole"),
        ("swap", "parts[filling] = porosity", "parts[filling] = 1 - porosity"),
        ("physics", '"C18H15SSbF6": 1200.0', '"C18H15SF6": 1200.0'),
    ],
    ("optics/liquors.py", "optics/test_materials_liquors.py"): [
        ("unit", "1e3 * amount * molar_mass", "amount * molar_mass"),
        ("unit", "TEMPERATURE_C = 20.0", "TEMPERATURE_C = 293.15"),
        ("unit", "math.exp(1e-6 * (", "math.exp(1e-5 * ("),
        ("sign", "(TEMPERATURE_C + c4) ** 2", "(TEMPERATURE_C - c4) ** 2"),
        ("sign", "c2 + c3 * TEMPERATURE_C", "c2 - c3 * TEMPERATURE_C"),
        ("sign", "dissolved = salt / (salt + water)", "dissolved = salt / (water - salt)"),
        ("factor", "dissolved = salt / (salt + water)", "dissolved = 0.0"),
        ("factor", "water / WATER_DENSITY\n", "water / 1010.0\n"),
        ("inverse", "cooling_factor * material.density", "material.density / cooling_factor"),
        ("value", "(0.769e-3,)", "(0.79e-3,)"),
        ("value", '"NaCl", 0.2659, -0.003241122237', '"NaCl", 0.2659, 0.03241122237'),
    ],
    ("optics/liquors.py", "optics/test_materials.py"): [
        ("unit", "PROTEIN_DENSITY = 1350.0", "PROTEIN_DENSITY = 1.35"),
        ("swap", "{molecule: 1 - solvent_fraction, solvent: ", "{molecule: solvent_fraction, solvent: 1 - "),
    ],
    ("optics/material_priors.py", "optics/test_materials_priors.py"): [
        ("factor", "low + (high - low) * float", "low + float"),
        ("unit", '"sodium_chloride": (0.5, 3.0)', '"sodium_chloride": (500.0, 3000.0)'),
        ("swap", '{solid: 1 - phase["porosity"]}', '{solid: phase["porosity"]}'),
        ("physics", '        solution["molar"],\n', "        {},\n"),
        ("seed", 'component_rng(seed, "material mount")', 'component_rng(0, "material mount")'),
    ],
    ("optics/spectrum.py", "optics/test_spectrum.py"): [
        ("sign", "np.exp(-np.asarray(mu) * thickness)", "np.exp(np.asarray(mu) * thickness)"),
        ("factor", "np.exp(-np.asarray(mu) * thickness)", "np.exp(-2 * np.asarray(mu) * thickness)"),
        ("factor", "2 * math.sqrt(2 * math.log(2))", "math.sqrt(2 * math.log(2))"),
        ("factor", "sigma = bandwidth * energy_kev", "sigma = bandwidth"),
        ("factor", "scale = sigma * math.sqrt(2)", "scale = sigma"),
        ("factor", "share * profile / profile.sum()", "share * profile"),
        ("factor", "np.exp(-0.5 * ((energies - top)", "np.exp(-1.0 * ((energies - top)"),
        ("sign", "centre + half * values", "centre - half * values"),
        ("factor", "vectors[0] ** 2", "abs(vectors[0])"),
        ("sign", "top * (1 - aperture_shift) - 3.5", "top * (1 + aperture_shift) - 3.5"),
        (
            "sign",
            "erf((energies - (top - smear)) / scale) - erf((energies - top) / scale)",
            "erf((energies - top) / scale) - erf((energies - (top + smear)) / scale)",
        ),
        ("swap", "th=anode_angle_deg", "th=90 - anode_angle_deg"),
        ("unit", "mm_to_m(thickness_mm)", "thickness_mm / 100"),
        ("weight", "counts[counts > 0] / counts.sum())", "(counts * energies)[counts > 0] / (counts @ energies))"),
    ],
    ("optics/thickness_kernels.py", "optics/test_thickness.py"): [
        ("swap", "weight = upper if side == 1", "weight = upper if side == 0"),
        ("swap", "weight = at - low if corner % 2 == 1", "weight = at - low if corner % 2 == 0", "fractions"),
        ("sign", "growth, deeper = -sine / cosine", "growth, deeper = sine / cosine"),
        ("sign", "growth, deeper = -cosine / sine", "growth, deeper = cosine / sine"),
        ("offset", "cx, cy = (nx - 1) / 2, (ny - 1) / 2", "cx, cy = nx / 2, ny / 2"),
        ("swap", "cx, cy = (nx - 1) / 2, (ny - 1) / 2", "cx, cy = (ny - 1) / 2, (nx - 1) / 2", "every_label"),
        ("sign", "rest[iz] -= level", "rest[iz] += level"),
        ("sign", "inside[iz] -= paths[m, iz]", "inside[iz] += paths[m, iz]", "fractions"),
    ],
    ("optics/thickness_kernels.py", "optics/test_thickness_planes.py"): [
        ("sign", "-u * sine / cosine - cy * deeper", "u * sine / cosine - cy * deeper", "mass and labels"),
        ("sign", "u * cosine / sine - cx * deeper", "-u * cosine / sine - cx * deeper", "mass and labels"),
        ("order", "k = step if deeper > 0 else steps - 1 - step  #", "k = step  #", "mass and labels"),
        ("order", "k = step if deeper > 0 else steps - 1 - step\n", "k = step\n", "mass and fractions"),
        ("swap", "(weight * tent) >> TENT_BITS", "(weight * (TENT - tent)) >> TENT_BITS", "mass and labels"),
        ("swap", "weight * (1 - tent), moved", "weight * tent, moved", "mass and fractions"),
        (
            "swap",
            "_finish(near, occurs, unit, tile[plane], column)\n                        near,",
            "_finish(far, occurs, unit, tile[plane], column)\n                        near,",
            "mass and labels",
        ),
        (
            "swap",
            "_finish_fractions(near, near_inside, scale[angle], tile[plane], column)\n                        near,",
            "_finish_fractions(far, far_inside, scale[angle], tile[plane], column)\n                        near,",
            "mass and fractions",
        ),
        (
            "sign",
            "tent = np.int64(0)\n                if n_planes > 1:\n                    place = min(max((w - depths[0])",
            "tent = np.int64(0)\n                if n_planes > 1:\n                    place = min(max((w + depths[0])",
            "mass and labels",
        ),
        (
            "sign",
            "tent = 0.0\n                if n_planes > 1:\n                    place = min(max((w - depths[0])",
            "tent = 0.0\n                if n_planes > 1:\n                    place = min(max((w + depths[0])",
            "mass and fractions",
        ),
        ("swap", "(weight * part) if side == 1", "(weight * part) if side == 0", "turned_frame and labels"),
        ("swap", "weight *= part if corner >= 2", "weight *= part if corner < 2", "turned_frame and fractions"),
        ("sign", "- label * stride - shift\n", "- label * stride + shift\n", "turned_frame and labels"),
        ("sign", "cosine - height * sine - start", "cosine + height * sine - start", "turned_frame and labels"),
        ("sign", "(fine[column] * sine + height", "(-fine[column] * sine + height", "turned_frame and labels"),
        ("swap", "weight = z - z0 if side == 1", "weight = z - z0 if side == 0", "turned_frame and labels"),
    ],
    ("optics/thickness.py", "optics/test_thickness.py"): [
        ("inverse", "voxel_size / np.maximum(", "voxel_size * np.maximum("),
        ("swap", "/ np.maximum(np.abs(cosines)", "/ np.minimum(np.abs(cosines)"),
        ("sign", "- 0.5 - centre  #", "- 0.5 + centre - (columns - 1)  #"),
        ("offset", "oversampling) + 0.5) / oversampling - 0.5 -", "oversampling)) / oversampling -"),
        ("sign", "np.cos(angles), np.sin(angles)", "np.cos(angles), -np.sin(angles)"),
        ("swap", "np.cos(angles), np.sin(angles)", "np.sin(angles), np.cos(angles)"),
        ("unit", "np.cos(angles), np.sin(angles)", "np.cos(np.deg2rad(angles)), np.sin(np.deg2rad(angles))"),
    ],
    ("optics/thickness.py", "optics/test_thickness_planes.py"): [
        ("unit", "depth_extent=depth_extent) / voxel_size", "depth_extent=depth_extent) * 1"),
        ("sign", "np.linspace(-extent / 2, extent / 2", "np.linspace(extent / 2, -extent / 2"),
        ("factor", "np.linspace(-extent / 2, extent / 2", "np.linspace(-extent, extent"),
        ("axis", "extent = max(shape[1:])", "extent = max(shape)"),
        ("sign", "float(np.tan(pitch))", "float(np.tan(-pitch))"),
        ("swap", "roll, pitch = _checked_tilt", "pitch, roll = _checked_tilt"),
        ("sign", "np.cos(roll), np.sin(roll)", "np.cos(roll), np.sin(-roll)"),
        ("inverse", "1 / np.cos(pitch)", "np.cos(pitch)"),
        ("factor", "np.abs(sines)) / np.cos(pitch)", "np.abs(sines))"),
    ],
    ("optics/thickness_cuda.py", "optics/test_thickness_cuda.py"): [
        ("sign", "over_rows ? -sine / cosine : -cosine", "over_rows ? sine / cosine : cosine"),
        ("sign", "over_rows ? -u * sine / cosine", "over_rows ? u * sine / cosine"),
        ("swap", "add(near, here + across_stride, upper, nz)", "add(near, here + across_stride, 1 - upper, nz)"),
        ("swap", "add(far, here, (1 - upper) * tent, nz)", "add(far, here, (1 - upper) * (1 - tent), nz)"),
        ("inverse", "voxel_size / (over_rows ?", "voxel_size * (over_rows ?"),
    ],
    ("optics/planes.py", "optics/test_planes.py not 300_planes"): [
        ("factor", "2 * voxel_size * (np.hypot", "voxel_size * (np.hypot"),
        ("unit", "wavelength * depth / pixel_size**2", "wavelength * depth / pixel_size"),
        ("factor", "_PER_DEPTH_RATIO = 0.07", "_PER_DEPTH_RATIO = 0.007"),
        ("factor", "_PER_NUMBER = 0.016", "_PER_NUMBER = 0.0016"),
        ("factor", "_PER_SPACING = 0.02", "_PER_SPACING = 0.002"),
        ("factor", "(1 if planes == 1 else 1.5) *", "(1 if planes == 1 else 15) *"),
        ("swap", "longest = max(counted", "longest = min(counted"),
    ],
    ("optics/propagation.py", "optics/test_propagation.py"): [
        ("sign", "np.exp(-1j * np.pi * wavelength", "np.exp(1j * np.pi * wavelength"),
        ("factor", "np.exp(-1j * np.pi * wavelength", "np.exp(-2j * np.pi * wavelength"),
        ("unit", "frequency = np.fft.fftfreq(n, pixel_size)", "frequency = 2 * np.pi * np.fft.fftfreq(n, pixel_size)"),
        ("factor", "pixel_size / (2 * wavelength * abs", "pixel_size / (8 * wavelength * abs"),
        ("factor", "pixel_size / (2 * wavelength * abs", "pixel_size / (wavelength * abs"),
        ("sign", "wave.imag = -amplitude * xp.sin(phase)", "wave.imag = amplitude * xp.sin(phase)"),
        ("factor", "amplitude = xp.exp(-attenuation)", "amplitude = xp.exp(-2 * attenuation)"),
        ("factor", "abs(distance) / (2 * pixel_size)", "abs(distance) / (8 * pixel_size)"),
        ("factor", "_TAIL = 64", "_TAIL = 4"),
        ("physics", "block[:, :width] = block[:, width, None]", "block[:, :width] = 0"),
        ("swap", "(source_distance + distance) / source_distance", "(source_distance + distance) / distance"),
        ("inverse", "return magnification, distance / mag", "return magnification, distance * mag"),
        ("sign", "np.exp(-2j * np.pi * distance / wave", "np.exp(2j * np.pi * distance / wave"),
        ("factor", "np.exp(-2j * np.pi * distance / wave", "np.exp(-1j * np.pi * distance / wave"),
        ("physics", "(squared / (1 + root))", "(squared / 2)"),
        ("factor", "band = 1 / (wavelength * np.sqrt(", "band = 2 / (wavelength * np.sqrt("),
        ("factor", "(2 * distance / (shape[axis]", "(8 * distance / (shape[axis]"),
    ],
    ("optics/propagation.py", "optics/test_propagation_cylinder.py"): [
        ("sign", "np.exp(-1j * np.pi * wavelength", "np.exp(1j * np.pi * wavelength"),
        ("factor", "amplitude = xp.exp(-attenuation)", "amplitude = xp.exp(-2 * attenuation)"),
    ],
    ("optics/wave_kernels.py", "optics/test_forward.py"): [
        ("sign", "decay[x] = -amplitude * sine", "decay[x] = amplitude * sine"),
        ("sign", "sine if turn >= _ZERO else -sine", "sine if turn >= _ZERO else sine"),
        ("sign", "_power_of_two(-decay[x])", "_power_of_two(decay[x])"),
        ("offset", "(start + r + 0.5) / oversampling - 0.5", "(start + r) / oversampling"),
        ("swap", "a[x] * lower + b[x] * upper", "a[x] * upper + b[x] * lower"),
        ("sign", "+ wave[y].imag * wave[y].imag", "- wave[y].imag * wave[y].imag"),
        ("sign", "oversampling + k - radius, 0)", "oversampling + k + radius, 0)"),
    ],
    ("optics/forward.py", "optics/test_forward.py"): [
        ("sign", "np.array([c.delta for c", "-np.array([c.delta for c"),
        ("unit", "fine = pixel_size / oversampling", "fine = pixel_size"),
        ("swap", "np.array([c.delta for c", "np.array([c.beta for c"),
        ("swap", "np.array([c.beta for c", "np.array([c.delta for c"),
        ("factor", "(2 * np.pi / line.wavelength / np.log(2))", "(4 * np.pi / line.wavelength / np.log(2))"),
        ("factor", "(2 * np.pi / line.wavelength / np.log(2))", "(2 * np.pi / line.wavelength)"),
        ("factor", "np.full(oversampling, 1 / oversampling))\n", "np.full(oversampling, 1 / oversampling**2))\n"),
        ("order", "exit_rows(maps[plane], ", "exit_rows(maps[len(maps) - 1 - plane], "),
        ("factor", "line.weight / total)", "line.weight)"),
        ("unit", "gaussian_taps(sigma_pixels * oversampling)", "gaussian_taps(sigma_pixels)"),
        ("swap", "_, effective = fresnel_scaling", "effective, _ = fresnel_scaling"),
        ("inverse", "half_depth / source_distance\n", "half_depth * source_distance\n"),
    ],
    ("optics/forward.py", "optics/test_planes.py"): [
        ("sign", "effective - depths[-1])", "effective + depths[-1])", "bead"),
        ("sign", "np.diff(depths), effective", "-np.diff(depths), effective", "bead"),
    ],
    ("optics/forward.py", "optics/test_scan_simulation.py"): [
        ("axis", "rotation_centre=geometry.rotation_centre", "rotation_centre=None", "bright or orientation"),
        (
            "sign",
            "rotation_centre=geometry.rotation_centre",
            "rotation_centre=columns - 1 - geometry.centre_column(columns)",
            "bright or orientation",
        ),
    ],
    ("optics/scan.py", "optics/test_scan_simulation.py"): [
        ("sign", "self.geometry.angles[batch],", "-self.geometry.angles[batch],"),
        ("flip y", "                    intensity[n],", "                    intensity[n][::-1],"),
        ("flip x", "                    intensity[n],", "                    intensity[n][:, ::-1],"),
        ("sign", "angles=geometry.angles,\n        energy_kev", "angles=-geometry.angles,\n        energy_kev"),
        ("unit", "/ self.geometry.pixel_size\n", "* 1e6\n"),
        ("unit", "<= 1e-6 * self.voxel_size", "<= 1e6 * self.voxel_size"),
        ("unit", "geometry.pixel_size,\n        prop", "geometry.pixel_size * 1e6,\n        prop"),
        ("unit", "energy_kev=beam.energy_kev,", "energy_kev=beam.energy_kev * 1e3,"),
        ("weight", "share * (energy if", "share / (energy if"),
        ("inverse", "distance / self.source_distance\n", "self.source_distance / distance\n"),
        ("inverse", "image / magnification", "image * magnification"),
        ("physics", "np.hypot(self.detector.psf_sigma, source)", "np.add(self.detector.psf_sigma, source)"),
        ("physics", "if tail > 0:", "if tail < 0:"),
        ("seed", "component_rng(self.seed, component, n)", "component_rng(self.seed, component)"),
        ("seed", "component_rng(self.seed, component, n)", 'component_rng(self.seed, "flat", n)'),
        ("seed", 'component_rng(self.seed, "projection", number)', 'component_rng(self.seed, "projection")'),
        ("seed", 'component_rng(self.seed, "projection", number)', 'component_rng(self.seed, "projection", n)'),
        ("seed", 'component_rng(self.seed, "projection", number)', 'component_rng(self.seed, "flat", number)'),
        ("seed", "(self.detector, self.frame_shape, self.seed)", "(self.detector, self.frame_shape, 0)"),
        ("sign", "number / span", "1 - number / span"),
        ("value", '_references("dark", 0.0', '_references("dark", 1.0'),
        ("value", "state,\n                    0.0,", "state,\n                    1.0,"),
        ("inverse", "illumination=light / light.mean()", "illumination=light.mean() / light"),
        ("factor", "illumination=light / light.mean()", "illumination=light / light.max()"),
        ("value", "intensity = self.intensity(batch)", "intensity = self.intensity(batch) ** 2"),
    ],
    ("optics/detector_kernels.py", "optics/test_detector.py"): [
        ("value", "(1.0 / 3.0 + square * (1.0 / 6.0))", "(square * (1.0 / 6.0))"),
        ("sign", "quantile -= normal * (1.0 / 36.0", "quantile += normal * (1.0 / 36.0"),
        ("factor", "offset + read_noise * noise[y, x]", "offset + 1.1 * read_noise * noise[y, x]"),
        ("factor", "counts[y, x] * gains[x] + offset", "counts[y, x] + offset"),
        ("sign", "* gains[x] + offset +", "* gains[x] - offset +"),
        ("offset", "reach = (n_taps - step) // 2", "reach = (n_taps - step) // 2 + 1"),
        ("offset", "np.rint(counts[y, x]), 0.0)", "np.floor(counts[y, x]), 0.0)"),
    ],
    ("optics/detector.py", "optics/test_detector.py"): [
        ("value", "2**detector.bits - 1", "2**detector.bits - 2"),
        ("factor", "[sigma**2 / 2, 1 - sigma**2, sigma**2 / 2]", "[sigma**2, 1 - 2 * sigma**2, sigma**2]"),
        ("factor", "np.exp(-0.5 * (np.arange(-reach", "np.exp(-1.0 * (np.arange(-reach"),
        ("factor", "np.exp(-2 * np.pi * radius * frequency)", "np.exp(-np.pi * radius * frequency)"),
        ("unit", "(gaussian_taps(sigma_pixels * oversampling), np", "(gaussian_taps(sigma_pixels), np"),
        ("factor", "self.column_gain * (1 + progress * self", "self.column_gain * (1 + self"),
        ("sign", "self.column_gain * (1 + progress * self", "self.column_gain * (1 - progress * self"),
        ("sign", "- progress * self.beam_shift", "+ progress * self.beam_shift"),
        ("offset", "1 + rng.poisson(detector.zinger_length - 1", "rng.poisson(detector.zinger_length"),
        ("physics", "detector.zinger_counts * rng.expo", "2 * detector.zinger_counts + 0 * rng.expo"),
        ("factor", "number = rng.poisson(detector.zinger_rate)", "number = rng.poisson(2 * detector.zinger_rate)"),
        ("value", "out.reshape(-1)[state.dead] = 0", "out.reshape(-1)[state.dead] = detector.offset"),
        ("inverse", "light = light * self.response[rows]", "light = light / self.response[rows]"),
        ("seed", "block_rng = rng.spawn(4)", "block_rng = np.random.default_rng(1).spawn(4)"),
        ("factor", "hot_counts / detector.gain) * detector.gain", "hot_counts / detector.gain)"),
        ("factor", "np.float32(progress) * self", "np.float32(2 * progress) * self"),
        ("factor", "1 - detector.beam_falloff *", "1 - 0.5 * detector.beam_falloff *"),
        ("sign", "1 - detector.beam_falloff *", "1 + detector.beam_falloff *"),
        ("factor", "np.float32(photons * flicker)", "np.float32(photons * flicker**2)"),
        ("factor", "1 + detector.beam_flicker * float", "1 + 2 * detector.beam_flicker * float"),
        ("factor", "np.exp(-2 * (np.pi * width * f(n)) ** 2)", "np.exp(-0.5 * (np.pi * width * f(n)) ** 2)"),
        ("factor", "np.float32(detector.offset_pattern)", "np.float32(2 * detector.offset_pattern)"),
        ("factor", "(beyond**2 + across**2) / (2 *", "(beyond**2 + across**2) / (8 *"),
        ("factor", "strength = detector.defect_strength * rng", "strength = 2 * detector.defect_strength * rng"),
    ],
    ("optics/photon_transfer.py", "optics/test_calibration.py"): [
        ("factor", "signals.append((1 + scale) *", "signals.append(1.04 * (1 + scale) *"),
        ("factor", "readings.append((1 + scale**2)", "readings.append(0.5 * (1 + scale**2)"),
        ("factor", "share *= 1 - 1 / n", "share *= 1"),
        ("factor", "share *= 1 - np.count_nonzero(members) / mask.sum()", "share *= 1"),
        ("sign", "columns_variance - columns_noise -", "columns_variance + columns_noise -"),
        ("sign", "rows_variance - noise / width, 0.0", "rows_variance, 0.0"),
        ("sign", "(rest[mask] ** 2).mean()) - noise\n", "(rest[mask] ** 2).mean()) + noise\n"),
        ("sign", "Estimate(total - from_noise,", "Estimate(total + from_noise,"),
        ("factor", "slope = p @ series / power", "slope = 2 * (p @ series) / power"),
        ("physics", 'profile - gaussian_filter1d(profile, FINE, mode="mirror")', "profile - profile.mean()"),
        ("factor", "halved / (2 * np.sqrt(np.log(2)))", "halved / np.sqrt(np.log(2))"),
        ("physics", "return seen * float(np.exp(threshold / mean))", "return seen * 2.0"),
        ("sign", "mean = middle - threshold", "mean = middle + threshold"),
        ("factor", "np.ones_like(u), -(u**2), u]", "np.ones_like(u), -(u**2) / 2, u]"),
        ("sign", "np.ones_like(u), -(u**2), u]", "np.ones_like(u), u**2, u]"),
        ("factor", "over[drawn].sum(axis=1) / under[drawn].sum(axis=1)", "over[drawn] / under[drawn]"),
    ],
    ("optics/calibration_study.py", "optics/test_calibration.py"): [
        ("physics", "sums.squares - self.reading_variance * sums.readings", "sums.squares"),
        ("unit", "variance.value - self.step**2 / 12", "variance.value - self.step**2 * 4"),
        ("inverse", "Estimate(mean / gain.value, mean", "Estimate(mean * gain.value, mean"),
        ("sign", "shift = -float(row_slope @ gradient)", "shift = float(row_slope @ gradient)"),
        ("factor", "shift = -float(row_slope @ gradient)", "shift = -2 * float(row_slope @ gradient)"),
        ("factor", "np.mean(np.diff(relative) ** 2)) / 2", "np.mean(np.diff(relative) ** 2)) * 4"),
        ("physics", "clear = self.use & (mean + reach + self.dark_map < self.limit)", "clear = self.use"),
        ("physics", "self.signal = self.flats - self.dark_map", "self.signal = self.flats"),
        ("value", "full = 2**bits - max(self.step, 1.0)", "full = 2**bits"),
        ("sign", "float(level.var()) - noise_of_mean", "float(level.var()) + noise_of_mean"),
    ],
    ("optics/calibration.py", "optics/test_calibration.py"): [
        ("offset", "low = [(whole - part) // 2", "low = [0 * (whole - part)", "crops"),
        ("swap", '"read_noise": "read_noise",', '"read_noise": "offset_pattern",', "closes"),
        ("value", "illumination=(light / light.mean())", "illumination=(light / light.max())", "closes or crops"),
    ],
    ("optics/edge_spread.py", "optics/test_calibration.py"): [
        ("physics", "antiderivative(position + 0.5) - antid", "ndtr(position / sigma) + 0 * antid", "edge"),
        ("sign", "antiderivative(position + 0.5) - ", "antiderivative(position + 0.5) + ", "edge"),
        ("factor", "slope**2 / 12)", "slope**2 * 12)", "edge"),
        ("sign", "x - x0 - slope * y", "x - x0 + slope * y", "edge"),
        ("factor", "np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)", "np.exp(-0.5 * z**2) / np.sqrt(np.pi)", "edge"),
    ],
    ("optics/presets.py", "optics/test_presets.py"): [
        ("swap", "DTU_ANODE_DEG = 140.0, 12.0", "DTU_ANODE_DEG = 140.0, 78.0"),
        ("value", "DTU_SLICE_NOISE = 0.01", "DTU_SLICE_NOISE = 0.1"),
        ("sign", "(plane - low) /", "(high - plane) /"),
        ("factor", "+ noise * drawn", "+ noise**2 * drawn"),
        ("seed", 'component_rng(seed, "slice noise", z)', 'component_rng(seed, "slice noise")'),
        ("factor", "rebinned(tube, energies)", "rebinned(tube, 1)"),
    ],
    ("fidelity/metrics.py", "test_fidelity.py compare or pool or intensity or range"): [
        ("factor", "(2 * covariance + c2)", "(covariance + c2)"),
        ("factor", "20 * np.log10", "10 * np.log10"),
        ("inverse", "data_range / rmse)) if", "rmse / data_range)) if"),
        ("swap", "_K1, _K2 = 0.01, 0.03", "_K1, _K2 = 0.03, 0.01"),
        ("sign", "np.asarray(simulated, np.float64) - reference", "np.asarray(simulated, np.float64) + reference"),
        ("factor", "float64), scale * np.asarray(", "float64), np.asarray("),
        ("sign", "_windowed(y * y) - mean_y**2", "_windowed(y * y) + mean_y**2"),
        ("value", "WINDOW_SIGMA = 1.5", "WINDOW_SIGMA = 2.0"),
        ("factor", "np.average([part.rmse**2 for part", "np.average([part.rmse for part"),
        ("swap", "np.sum(np.square(simulated,", "np.sum(np.square(reference,"),
        ("factor", "_PERCENTILES = (0.1, 99.9)", "_PERCENTILES = (0.0, 100.0)"),
    ],
    ("fidelity/air.py", "test_fidelity.py"): [
        ("inverse", "transmission / air_level(transmission", "transmission * air_level(transmission", "air"),
        ("factor", "(0.674489750196 * np.sqrt(2))", "0.674489750196", "air"),
    ],
    ("fidelity/labels.py", "test_fidelity.py"): [
        ("factor", "np.abs(grey - np.float32(grey[thick].mean(dtype=np.float64)))", "np.abs(grey)", "label"),
        ("factor", "(total[None, :] - total[:, None]) ** 2 /", "np.abs(total[None, :] - total[:, None]) /", "otsu"),
    ],
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
