"""Where a run came from."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys

import pytest

import mlwrap
from mlwrap._capture.secret_shapes import REDACTED
from mlwrap._process.provenance import code, pins, provenance


def git(folder, *arguments):
    """Run git in a folder, with an identity and settings of its own."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A repository with one commit, a remote with a password, and a module in it."""
    git(tmp_path, "init", "-q", "-b", "trunk")
    git(tmp_path, "remote", "add", "origin", "https://me:hunter2@host/repo.git")
    (tmp_path / "job.py").write_text("def train():\n    pass\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    return tmp_path


def function_of(folder):
    """The function of a module in a folder, under a name of its own."""
    spec = importlib.util.spec_from_file_location("job", folder / "job.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.train


def test_commit_of_the_function(checkout):
    """The repository is the function's own, not the working folder's; passwords stay out of the tags."""
    tags = provenance(function_of(checkout))
    assert tags["mlflow.source.git.commit"] == git(checkout, "rev-parse", "HEAD")
    assert tags["mlflow.source.git.branch"] == "trunk"
    assert tags["mlflow.source.git.repoURL"] == f"https://me:{REDACTED}@host/repo.git"
    assert tags["mlwrap.git.dirty"] == "false"
    assert tags["mlwrap.function"] == "job:train"


@pytest.mark.parametrize(
    "remote", ["https://abcdef@host/repo.git", "https://abcdef:x-oauth-basic@host/repo.git"]
)
def test_a_remote_whose_user_is_a_token(checkout, remote):
    """A token needs no password beside it."""
    git(checkout, "remote", "set-url", "origin", remote)
    assert (
        provenance(function_of(checkout))["mlflow.source.git.repoURL"] == f"https://{REDACTED}@host/repo.git"
    )


def test_changes_are_said(checkout):
    """A commit with changes on top is not what ran."""
    (checkout / "job.py").write_text("def train():\n    return 1\n")
    assert provenance(function_of(checkout))["mlwrap.git.dirty"] == "true"


def test_detached_linked_working_tree(checkout):
    """No branch where there is none; the remote is found in the main repository."""
    linked = checkout / "linked"
    git(checkout, "worktree", "add", "-q", "--detach", str(linked))
    tags = provenance(function_of(linked))
    assert "mlflow.source.git.branch" not in tags
    assert tags["mlflow.source.git.repoURL"].endswith("@host/repo.git")


def test_hook_variables_do_not_mislead(checkout, monkeypatch):
    """Inside a git hook, variables name another repository."""
    monkeypatch.setenv("GIT_DIR", os.devnull)
    assert "mlflow.source.git.commit" in provenance(function_of(checkout))


def test_folder_without_repository(tmp_path):
    """No repository: no git tags, and nothing else missing."""
    (tmp_path / "job.py").write_text("def train():\n    pass\n")
    tags = provenance(function_of(tmp_path))
    assert not [name for name in tags if ".git." in name]
    assert tags["mlflow.source.type"] == "LOCAL"
    assert tags["mlwrap.version"] == mlwrap.__version__
    assert tags["mlwrap.python"].startswith("3.")


def test_machine_without_git(checkout, monkeypatch):
    """Where git can't be started nothing fails."""
    monkeypatch.setenv("PATH", "")
    assert "mlflow.source.git.commit" not in provenance(function_of(checkout))


def test_git_is_asked_once(checkout, monkeypatch):
    """The second run of a process finds the answer of the first."""
    first = provenance(function_of(checkout))
    monkeypatch.setenv("PATH", "")
    assert provenance(function_of(checkout)) == first


def test_no_function():
    """A with-block has no function; the main script stands for it."""
    assert "mlwrap.function" not in provenance()


def test_command_line_without_secrets(monkeypatch):
    """An option's value goes whether it stands behind ``=`` or comes next."""
    monkeypatch.setattr(
        sys,
        "argv",
        ["job.py", "--password", "hunter2hunter2", "--api-key=abc", "--max-tokens", "512", "hunter2hunter2"],
    )
    assert (
        provenance()["mlwrap.argv"]
        == f"job.py --password {REDACTED} --api-key={REDACTED} --max-tokens 512 {REDACTED}"
    )


def test_versions_of_what_is_imported():
    """Only frameworks that are imported can have taken part."""
    versions = dict(item.split(" ") for item in provenance().get("mlwrap.versions", "").split(", ") if item)
    assert set(versions) <= set(sys.modules)
    if "numpy" in sys.modules:
        assert versions["numpy"] == sys.modules["numpy"].__version__


def test_pins_name_what_is_really_installed():
    """TensorFlow has several distributions; what is not installed is left out."""
    found = pins(["tensorflow", "numpy", "no-such-distribution", "numpy"])
    assert [pin.partition("==")[0] for pin in found] == ["tensorflow-cpu", "numpy"]


def test_pins_leave_local_versions_out(tmp_path, monkeypatch):
    """No index has ``+cpu``, and the pin without it is met by what is here."""
    info = tmp_path / "mlwrap_example_local-2.1.0+cpu.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mlwrap-example-local\nVersion: 2.1.0+cpu\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert pins(["mlwrap-example-local"]) == ("mlwrap-example-local==2.1.0",)


def function(source: str, folder=None):
    """The function ``train`` of a source, which is in a file where ``folder`` is given."""
    names = {"functools": functools}
    where = "<typed in>"
    if folder is not None:
        where = folder / f"job{len(list(folder.iterdir()))}.py"
        where.write_text(source)
    exec(compile(source, str(where), "exec"), names)
    return names["train"]


@pytest.mark.parametrize("typed_in", [False, True])
def test_code_is_the_same_while_the_function_does_the_same(tmp_path, typed_in):
    """Its decorators, comments and layout are not looked at; what it does is."""
    folder = None if typed_in else tmp_path
    plain = code(function("def train(a=1):\n    return a + 2\n", folder))
    noted = "@functools.lru_cache(3)\ndef train(a = 1):\n    # a note\n    return (a+2)\n"
    assert code(function(noted, folder)) == plain
    assert code(function("def train(a=1):\n    return a + 3\n", folder)) != plain
    assert "0x" not in code(function("def train(a=1):\n    return (lambda: a)\n", folder))


def test_code_of_what_is_no_plain_function():
    """Partials, callables, lambdas and builtins have some, too."""

    class Trainer:
        def __call__(self, units):
            return units * 17

    assert "units * 17" in code(Trainer())
    assert "_example" in code(functools.partial(functools.partial(_example, 1)))
    assert "units * 18" in code(lambda units: units * 18)
    assert code(max).startswith("max")


def _example(number):
    return number
