"""What the documents say is true of the repository."""

import importlib.util
import inspect
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
THIS_FILE = Path(__file__).resolve()
SKIPPED_FOLDERS = {"workspace", "build", "dist", "__pycache__"}


def repository_files() -> list[Path]:
    """Files that are, or would be, under version control."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listing = (
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True) if shutil.which("git") else None
    )
    if listing is not None and listing.returncode == 0:
        found = [ROOT / name for name in listing.stdout.split("\0") if name]
    else:  # an unpacked archive, or a machine without git
        found = [
            path
            for path in ROOT.rglob("*")
            if not any(
                part.startswith(".") or part in SKIPPED_FOLDERS or part.endswith(".egg-info")
                for part in path.relative_to(ROOT).parts
            )
        ]
    return sorted(path for path in found if path.is_file() and path.resolve() != THIS_FILE)


def text_files(*suffixes: str) -> list[Path]:
    return [path for path in repository_files() if path.suffix in suffixes or path.name in suffixes]


DOCUMENTS = text_files(".md")
DOCUMENT_NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def code_spans(document: Path) -> str:
    """The fenced blocks and the inline code of a document, one a line."""
    text = document.read_text()
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, flags=re.M | re.S)
    inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return "\n".join([*fenced, *inline])


def makefile() -> str:
    return (ROOT / "Makefile").read_text()


# ---------------------------------------------------------------- commands


@pytest.mark.parametrize("document", DOCUMENTS, ids=DOCUMENT_NAMES)
def test_make_commands__are_targets_with_known_variables(document):
    targets = set(re.findall(r"^([a-z]+):", makefile(), flags=re.M))
    variables = set(re.findall(r"\$\(([A-Z_]+)\)", makefile())) | {"SYSTEM_PACKAGES"}
    for target, rest in re.findall(r"(?:^|[\s;&])make ([a-z]+)([^\n;&#]*)", code_spans(document), flags=re.M):
        assert target in targets, f"`make {target}`: the Makefile has no such target"
        for name in re.findall(r"\b([A-Z][A-Z_]+)=", rest):
            assert name in variables, f"`make {target} {name}=…`: the Makefile reads no such variable"


@pytest.mark.parametrize("document", DOCUMENTS, ids=DOCUMENT_NAMES)
def test_python_commands__name_modules_and_flows_that_exist(document):
    from flows import FLOWS

    spans = code_spans(document)
    for module in re.findall(r"python -m ([a-z_][\w.]*)", spans):
        assert importlib.util.find_spec(module), f"`python -m {module}`: there is no such module"
    for flow in re.findall(r"python -m flows ([a-z]\w*)", spans):
        assert flow in FLOWS, f"`python -m flows {flow}`: the flows are {sorted(FLOWS)}"


def test_readme__shows_the_main_commands():
    spans = code_spans(ROOT / "README.md")
    for command in ("make demo", "make test", "make dashboard", "python -m flows"):
        assert command in spans, f"README.md does not show `{command}`"


# ---------------------------------------------------------------- the tree, links, version


def tree_entries(text: str) -> list[str]:
    """Paths of the folders and files that a fenced tree lists: captions aside, nested by indentation."""
    entries = []
    for block in re.findall(r"^```\w*\n(.*?)^```", text, flags=re.M | re.S):
        lines = [line for line in block.splitlines() if re.match(r"[\s│├└─]*[\w.-]+/(\s|$)", line)]
        if len(lines) < 3:
            continue
        parents: list[tuple[int, str]] = []
        for line in lines:
            indent = re.match(r"[\s│├└─]*", line).end()
            name = line[indent:].split()[0].rstrip("/")
            while parents and parents[-1][0] >= indent:
                parents.pop()
            entries.append("/".join([*(parent for _, parent in parents), name]))
            parents.append((indent, name))
    return entries


def test_readme__tree_lists_folders_that_exist():
    entries = tree_entries((ROOT / "README.md").read_text())
    assert entries, "README.md shows no tree of the repository"
    missing = [name for name in entries if not (ROOT / name).is_dir()]
    assert not missing, "in README's tree, but not in the repository"


def test_tree_entries__nests_by_indentation():
    tree = "```\nflows/   recipes\ntomoforge/\n  units.py geometry.py\n  optics/  waves\n  samples/\ndocs/\n```\n"
    assert tree_entries(tree) == ["flows", "tomoforge", "tomoforge/optics", "tomoforge/samples", "docs"]
    drawn = "```text\n├── flows/   recipes\n├── tomoforge/\n│   └── optics/\n└── docs/\n```\n"
    assert tree_entries(drawn) == ["flows", "tomoforge", "tomoforge/optics", "docs"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=DOCUMENT_NAMES)
def test_links__lead_to_files_that_exist(document):
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.M | re.S)
    targets = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(r"(?:src|href)=\"([^\"]+)\"", text)
    for target in targets:
        path = target.split("#")[0]
        if path and not re.match(r"[a-z]+:", path):
            assert (document.parent / path).exists(), f"{target}: no such file beside {document.name}"


def test_version__is_the_same_everywhere():
    import tomoforge

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert tomoforge.__version__ == version
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()


# ---------------------------------------------------------------- flow parameters


def documented_arguments(docstring: str) -> dict[str, str]:
    """Names and first lines of a docstring's Google `Args:` section."""
    section = re.search(r"^Args:\n((?:[ \t]+.*\n?|\n)+)", inspect.cleandoc(docstring) + "\n", flags=re.M)
    if section is None:
        return {}
    lines = inspect.cleandoc("\n" + section[1]).splitlines()
    entries = (re.match(r"(\w+)(?: \([^)]*\))?:\s*(.*)", line) for line in lines if not line.startswith(" "))
    return {entry[1]: entry[2] for entry in entries if entry}


def test_documented_arguments__reads_a_google_section():
    docstring = """Do it.

    Args:
        scan: the file
            and more.
        energy_kev (float): photon energy [keV].

    Returns:
        nothing: really.
    """
    assert documented_arguments(docstring) == {"scan": "the file", "energy_kev": "photon energy [keV]."}


def test_flows__document_every_parameter():
    from flows import FLOWS

    assert {
        "end_to_end",
        "forge_dataset",
        "reconstruct_scan",
        "train_segmenter",
        "correct_absorption",
    } <= set(FLOWS)
    for name, flow in FLOWS.items():
        documented = documented_arguments(flow.fn.__doc__ or "")
        assert list(documented) == list(inspect.signature(flow.fn).parameters), f"Args of the flow {name}"
        for argument, line in documented.items():
            assert len(line) > 3, f"the flow {name} says nothing about {argument}"


# ---------------------------------------------------------------- what no file may hold

FORBIDDEN = {
    "a path of one machine": r"(?<![\w.$}])/(?:work|root|home/\w+|Users/\w+)/\w",
    "the host of a package index": r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|anaconda\.org"
    r"|https?://[^\s'\"]+/simple",
}


@pytest.mark.parametrize("kind", FORBIDDEN)
def test_files__hold_no(kind):
    found = []
    for path in repository_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture
        found += [f"{path.relative_to(ROOT)}: {match[0]}" for match in re.finditer(FORBIDDEN[kind], text)]
    assert not found


def test_code__leaves_nothing_undone():
    marks = re.compile(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in text_files(".py", ".sh", ".yaml", ".yml", ".toml", "Makefile")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marks.search(line)
    ]
    assert not found
