"""Run the notebook from top to bottom with its hidden solutions, and stop at the first error.

    python notebooks/execute.py --write         # run it in full and keep its outputs, as `make notebook` does
    MAX_ITERS=20 python notebooks/execute.py    # a quick check

The notebook runs in a temporary folder, with the current folder's input.txt if there is one.
"""

import argparse
import re
import shutil
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("mini_gpt.ipynb")
SOLUTION = re.compile(r"<details>.*?^```python\n(.*?)^```.*?</details>", re.M | re.S)


def add_solutions(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return a copy with a code cell for each hidden solution, after its question."""
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "markdown":
            found = SOLUTION.findall(cell.source)
            cells += [nbformat.v4.new_code_cell(code, metadata={"solution": True}) for code in found]
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


def execute(folder: Path, timeout: int = 1800) -> nbformat.NotebookNode:
    """Run the notebook.

    Args:
        folder: the folder to run it in.
        timeout: the longest time of a cell, in seconds.

    Returns:
        The notebook with its outputs, without the cells of the solutions.

    Raises:
        CellExecutionError: if a cell or a solution fails.
    """
    notebook = add_solutions(nbformat.read(NOTEBOOK, as_version=4))
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": folder}},
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # hides a warning of IPython about its own default
    )
    client.execute()
    notebook.cells = [cell for cell in notebook.cells if not cell.metadata.get("solution")]
    for count, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), 1):
        cell.execution_count = count
        cell.metadata = {}  # removes the times at which the cells ran
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
    return notebook


def main() -> None:
    """Run the notebook, and write it back with --write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep the outputs in the notebook")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if Path("input.txt").exists():
            shutil.copy("input.txt", folder)
        notebook = execute(Path(folder))
    if arguments.write:
        nbformat.write(notebook, NOTEBOOK)
        print(f"{NOTEBOOK.name}: {NOTEBOOK.stat().st_size / 2**20:.2f} MB")


if __name__ == "__main__":
    main()
