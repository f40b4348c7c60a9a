"""`python -m rl` lists the commands."""

import ast
from pathlib import Path


def commands() -> dict[str, str]:
    """Command → the first sentence of its docstring; no command is imported."""
    files = sorted(Path(__file__).parent.glob("[a-z]*.py"))
    docs = {file.stem: ast.get_docstring(ast.parse(file.read_text())) or "" for file in files}
    return {name: doc.splitlines()[0].partition(": ")[2] for name, doc in docs.items()}


if __name__ == "__main__":
    for name, purpose in commands().items():
        print(f"python -m rl.{name:10} {purpose}")
    print("each takes --help; the verifier is `python -m rewards`, the server `python -m rollout_server`")
