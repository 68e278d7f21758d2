"""What computed a result, and that asking for it is cheap."""

import subprocess
import sys
from pathlib import Path

from aumcli.report import environment


def test_environment_names_versions_and_machine():
    import torch

    values = environment.environment()
    assert set(values) == {"aumcli", "torch", "python", "platform", "cpu", "cpus", "threads"}
    assert all(values.values()) and values["torch"] == torch.__version__
    assert values["threads"] == torch.get_num_threads()


def test_importing_report_and_metrics_loads_nothing_heavy():
    code = (
        "import sys, aumcli.report.tables, aumcli.report.plots, aumcli.report.environment, aumcli.metrics;"
        "print([m for m in ('matplotlib', 'sklearn', 'scipy', 'pandas', 'rich', 'torch') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.strip()


def test_the_commit_is_that_of_the_code(tmp_path, monkeypatch):
    module = tmp_path / "aumcli" / "report" / "environment.py"
    module.parent.mkdir(parents=True)
    module.write_text("1")
    monkeypatch.setattr(environment, "__file__", str(module))
    assert environment.commit() is None  # an installed package
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "one")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert environment.commit() == head
    git(tmp_path, "tag", "v1")
    assert environment.commit() == head
    module.write_text("2")
    assert environment.commit() == head + "+"
    monkeypatch.setenv("PATH", "")  # a machine without git
    assert environment.commit() is None
