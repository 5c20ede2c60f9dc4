"""The laws of the tree: who may import whom, what must not be imported early, which imports are lineage."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import convarium
from convarium.facts import all_facts
from convarium.networks import CATALOGUE

SOURCE = Path(convarium.__file__).parent

# Each part may import itself and what stands before it. Parts of one row do not import each other.
LAYERS = [
    {"errors"},
    {"atomic", "console", "facts", "svg"},
    {"adaptation", "attention", "blocks", "network", "tensors"},
    {"plan"},
    {"weights"},
    {"networks"},
    {"surgery"},
    {"anatomy", "data"},
    {"recipe", "runs"},
    {"snapshots"},
    {"evaluation"},
    {"report"},
    {"lineage", "claims", "exchange"},
    {"training", "explanation", "deploy"},
    {"compression"},
    {"speed"},
    {"race"},
    {"demo"},
    {"cli"},
]


def imports(path: Path, *, top_only: bool = False) -> set[str]:
    """Names of ``convarium`` modules that a file imports, anywhere or as it is loaded; type checking does not count."""
    tree = ast.parse(path.read_text())
    guarded = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    skipped = {id(inner) for block in guarded for statement in block.body for inner in ast.walk(statement)}
    nodes = tree.body if top_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def imports_by_name(path: Path) -> list[ast.Call]:
    """Calls of ``import_module`` or ``__import__`` with a name that is written there."""
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    named = [call for call in found if ast.unparse(call.func).rpartition(".")[2] in ("import_module", "__import__")]
    return [call for call in named if call.args and isinstance(call.args[0], ast.Constant)]


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def layer_of(part: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if part in layer)


FILES = [
    path for path in sorted(SOURCE.rglob("*.py")) if path.parent != SOURCE or path.stem not in ("__init__", "__main__")
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_one_way(path):
    part = part_of(path)
    for module in imports(path):
        if module.startswith("convarium."):
            other = module.split(".")[1]
            assert other == part or layer_of(other) < layer_of(part), f"{path} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_nothing_imports_another_library_or_pickle(path):
    others = {"torchvision", "timm", "pretrainedmodels", "pytorchcv", "keras", "tensorflow"}
    assert not {module.split(".")[0] for module in imports(path)} & (others | {"pickle"})
    # By name, they are imported where they are asked for their logits, if they are here.
    named = {call.args[0].value.split(".")[0] for call in imports_by_name(path)}
    assert path == SOURCE / "exchange" / "peers.py" or not named & others


def test_another_library_is_imported_on_use_alone():
    code = "import sys, convarium.exchange.peers; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torchvision", "timm", "pretrainedmodels", "pytorchcv", "keras"} & {*loaded}


def test_imports_between_networks_are_edges_of_the_lineage():
    facts = all_facts()
    file_of = {name: address.split(":")[0] for name, (address, _) in CATALOGUE.items()}
    ancestry = {(file_of[name], file_of[parent]) for name in CATALOGUE for parent in facts[name].parents}
    for file in {*file_of.values()}:
        imported = {m.rsplit(".", 1)[1] for m in imports(SOURCE / "networks" / f"{file}.py") if ".networks." in m}
        for other in imported:
            assert (file, other) in ancestry
            assert min(facts[n].paper.year for n in CATALOGUE if file_of[n] == other) <= min(
                facts[n].paper.year for n in CATALOGUE if file_of[n] == file
            )


def test_parents_exist_and_no_network_is_its_own_ancestor():
    facts = all_facts()
    for name in facts:
        seen, frontier = set(), {name}
        while frontier:
            frontier = {parent for child in frontier for parent in facts[child].parents}
            assert name not in frontier
            assert frontier <= set(facts)
            seen |= frontier


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "se_*", "--json"], ["tree"], ["tree", "vgg16"]])
def test_what_answers_at_once_imports_neither_torch_nor_tyro(arguments):
    code = (
        "import sys; from convarium.cli import main; main(sys.argv[1:]);"
        "assert not {'torch', 'tyro', 'numpy', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True)


@pytest.mark.parametrize("command", ["tree resnet50 --svg tree.svg", "compare", "compare --figure chart.svg"])
def test_what_the_facts_tell_needs_no_torch(command, tmp_path):
    code = "import sys; from convarium.cli import main; sys.exit(main(sys.argv[1:]) or 'torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, *command.split()], check=True, capture_output=True, cwd=tmp_path)


def test_importing_the_package_costs_nothing():
    code = "import sys, convarium; assert not {'torch', 'numpy', 'rich'} & set(sys.modules); print(dir(convarium))"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "create_model" in shown and "train" in shown


def test_every_public_name_resolves():
    for name in convarium.__all__:
        assert callable(getattr(convarium, name))
    with pytest.raises(AttributeError, match="no attribute 'creat_model'"):
        convarium.creat_model  # noqa: B018
