"""What each merging statistic is, in words and formulas: programs differ, and a table must say which it follows."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Definition:
    """How equivalents are merged. weighted : by 1/σ²; gemmi_code : gemmi's letter; denominator : of R values."""

    weighted: bool
    gemmi_code: str
    denominator: str


DEFINITIONS = {
    "aimless": Definition(weighted=True, gemmi_code="Y", denominator="Σ n⟨I⟩ (Aimless)"),
    "xds": Definition(weighted=True, gemmi_code="X", denominator="Σ Σᵢ Iᵢ (XDS, iotbx, DIALS)"),
    "unweighted": Definition(weighted=False, gemmi_code="U", denominator="Σ Σᵢ Iᵢ"),
}
SIGMA_DEFINITIONS = ("propagated", "larger")

# Columns of the statistics, in the order of a table. COUNTS are whole numbers.
COLUMNS = (
    "d_max_angstrom",
    "d_min_angstrom",
    "observations",
    "unique",
    "possible",
    "completeness",
    "multiplicity",
    "mean_intensity",
    "i_over_sigma",
    "observation_i_over_sigma",
    "r_merge",
    "r_meas",
    "r_pim",
    "cc_half",
    "cc_half_sigma_tau",
    "anomalous_pairs",
    "anomalous_completeness",
    "anomalous_multiplicity",
    "anomalous_cc",
    "anomalous_slope",
    "df_over_f",
    "di_over_sigma_di",
    "r_anom",
)
COUNTS = ("observations", "unique", "possible", "anomalous_pairs")


def describe(definition: str, sigma_definition: str, anomalous: bool, draws: int) -> dict[str, str]:
    """Each column's definition in words, for the choices of ``merging_statistics``."""
    chosen = DEFINITIONS[definition]
    mates = "Friedel mates apart" if anomalous else "Friedel mates merged"
    weights = "weights 1/σ²" if chosen.weighted else "equal weights"
    sigma = (
        "propagated from σᵢ" if sigma_definition == "propagated" else "propagated or from scatter, the larger"
    )
    halves = f"mean over {draws} random halvings" if draws > 1 else "one random halving"
    repeated = f"n > 1, ⟨I⟩ with {weights}, divided by {chosen.denominator}, {mates}"
    return {
        "d_max_angstrom": "lower resolution limit [Å]",
        "d_min_angstrom": "higher resolution limit [Å]",
        "observations": "observations merged",
        "unique": f"unique reflections observed, {mates}",
        "possible": f"unique reflections that the space group allows within the limits, {mates}",
        "completeness": "unique / possible",
        "multiplicity": "observations / unique",
        "mean_intensity": f"mean of merged I, {weights}",
        "i_over_sigma": f"mean over unique reflections of merged I / σ, {weights}, σ {sigma}, {mates}",
        "observation_i_over_sigma": "mean over observations of Iᵢ / σᵢ",
        "r_merge": f"Σ Σᵢ |Iᵢ − ⟨I⟩|, {repeated}",
        "r_meas": f"Σ √(n/(n − 1)) Σᵢ |Iᵢ − ⟨I⟩|, {repeated}",
        "r_pim": f"Σ √(1/(n − 1)) Σᵢ |Iᵢ − ⟨I⟩|, {repeated}",
        "cc_half": f"Pearson correlation of merged half sets, {halves}, {weights}, {mates}",
        "cc_half_sigma_tau": f"(σ²ᵧ − σ²ₑ/2) / (σ²ᵧ + σ²ₑ/2) without halving (Assmann 2016), {weights}, {mates}",
        "anomalous_pairs": "acentric reflections with both mates observed",
        "anomalous_completeness": "pairs / possible acentric reflections",
        "anomalous_multiplicity": "observations / unique reflections, Friedel mates apart",
        "anomalous_cc": f"Pearson correlation of ΔI between half sets, {halves}, equal weights",
        "anomalous_slope": f"normal probability of ΔI/σ(ΔI), slope where expected |x| < 0.9, σ {sigma}",
        "df_over_f": "√(2⟨(F⁺ − F⁻)²⟩ / ⟨F⁺² + F⁻²⟩), acentric, both I > 0",
        "di_over_sigma_di": f"mean |ΔI| / mean σ(ΔI), σ {sigma}",
        "r_anom": "Σ |I⁺ − I⁻| / Σ |⟨I⟩|",
    }
