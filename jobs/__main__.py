"""List the commands: `python -m jobs`."""

import ast
from pathlib import Path

from rich.console import Console
from rich.table import Table


def commands() -> dict[str, str]:
    """Return what each command does, by its module; nothing is imported, which would take seconds."""
    files = [path for path in sorted(Path(__file__).parent.glob("*.py")) if not path.stem.startswith("_")]
    trees = {f"jobs.{path.stem}": ast.parse(path.read_text()) for path in files}
    return {
        name: (ast.get_docstring(tree) or "").splitlines()[0]
        for name, tree in trees.items()
        if any(isinstance(node, ast.If) for node in tree.body)  # if __name__ == "__main__"
    }


if __name__ == "__main__":
    table = Table("python -m ...", "what it does; --help has its options")
    for command, summary in commands().items():
        table.add_row(command, summary)
    Console().print(table)
