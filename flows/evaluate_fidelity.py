"""How true a simulation is: a real scan against its twins by wave optics and by absorption only."""

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows.report import FlowReport, where_results_lie
from tasks.cluster import open_compute
from tasks.fidelity import choose_distance, label_classes, same_axis, scale_scan_to_air, simulate_twin
from tasks.fidelity_report import ABSORPTION, WAVE, publish_fidelity
from tasks.labelled_volumes import find_labels
from tasks.publishing import publish_scan
from tasks.runs import text_table
from tasks.scans import check_real_scan, import_scan
from tasks.volumes import reconstruct
from tomoforge.config import ClusterSettings, Positive, ReconstructionSettings, Seed
from tomoforge.fidelity.settings import FidelitySettings
from tomoforge.storage import Workspace


@flow(task_runner=ThreadPoolTaskRunner(max_workers=4))
def evaluate_fidelity(
    scan: str,
    energy_kev: Positive | None = None,
    pixel_size_um: Positive | None = None,
    labels: str | None = None,
    seed: Seed = 1,
    fidelity: FidelitySettings = FidelitySettings(),
    reconstruction: ReconstructionSettings = ReconstructionSettings(),
    cluster: ClusterSettings = ClusterSettings(),
) -> FlowReport:
    """Compare a real scan with simulations of it: SSIM and PSNR of projections and slices.

    Args:
        scan: Path of the real scan (NXtomo HDF5).
        energy_kev: Photon energy [keV]; needed where the file does not say it.
        pixel_size_um: Detector pixel at the sample [µm]; needed where the file does not say it.
        labels: Key of a label volume in the workspace, on the voxels of the reconstruction; by multi-Otsu if not given.
        seed: Of the simulated noise.
        fidelity: How the simulated twins are made.
        reconstruction: How the real scan and its twins are reconstructed.
        cluster: Where the work is done.
    """
    workspace = Workspace.default()
    check_real_scan(scan, energy_kev, pixel_size_um)
    given = find_labels(workspace, labels) if labels else None
    name = scan.rsplit("/", 1)[-1]
    with open_compute(cluster) as compute:
        raw = import_scan(workspace, scan, energy_kev=energy_kev, pixel_size_um=pixel_size_um)
        real = scale_scan_to_air(workspace, raw, margins=fidelity.air_margins_px)
        volume = reconstruct(compute, workspace, real, settings=reconstruction, name=name)
        classes = label_classes(workspace, volume, real, given=given, settings=fidelity)
        tried = choose_distance(compute, workspace, real, volume, classes, settings=fidelity, seed=seed)
        twins = {}
        for model, distance_mm in ((WAVE, tried[0]["distance_mm"]), (ABSORPTION, 0.0)):
            twin = simulate_twin(
                compute, workspace, real, volume, classes,
                settings=fidelity, distance_mm=distance_mm, seed=seed, name=model,
            )  # fmt: skip
            twins[model] = (
                twin,
                reconstruct(
                    compute,
                    workspace,
                    twin,
                    settings=same_axis(workspace, volume, reconstruction),
                    name=model,
                ),
            )
        shown, rows = publish_fidelity(
            compute, workspace, real, volume, classes, twins,
            tried=tried, settings=fidelity, name=name, sources={"scan": publish_scan(workspace, raw, name=name)},
        )  # fmt: skip
    header = ("images", "model", "scaling", "SSIM", "PSNR [dB]")
    lines = text_table(
        header,
        [(r["images"], r["model"], r["scaling"], f"{r['ssim']:.4f}", f"{r['psnr_db']:.2f}") for r in rows],
    )
    lines += [f"distance  {tried[0]['distance_mm']:g} mm", *where_results_lie(workspace)]
    return FlowReport(tuple(lines), {"fidelity": shown}, {"labels": classes.key, "volume": volume.key})
