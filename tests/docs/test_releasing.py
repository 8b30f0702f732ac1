"""What a release is made of: the script refuses what is not ready, and the container gets what is installed."""

import re
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

import rlgrad

ROOT = Path(__file__).resolve().parents[2]


def release(tree, *arguments):
    command = ["bash", tree / ".ci" / "release", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path):
    """A checkout with what the script looks at before it builds, ready for a release."""
    for name in (".ci/release", "rlgrad/__init__.py", "CITATION.cff"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "rlgrad" / "__init__.py").write_text('__version__ = "0.1.0"\n')
    (tmp_path / "CITATION.cff").write_text("version: 0.1.0\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## Unreleased\n\n## 0.1.0\n\n- All.\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "All"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def commit(tree):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run([*git, "commit", "-qam", "Change"], cwd=tree, check=True)


def test_a_version_that_citation_does_not_name_is_refused(tree):
    (tree / "CITATION.cff").write_text("version: 0.2.0\n")
    commit(tree)
    result = release(tree)
    assert result.returncode == 1
    assert "CITATION.cff names another version than rlgrad.__version__, 0.1.0" in result.stderr


def test_a_version_without_a_section_of_the_changelog_is_refused(tree):
    (tree / "CHANGELOG.md").write_text("# Changelog\n\n## 0.0.9\n")
    commit(tree)
    assert "CHANGELOG.md has no section '## 0.1.0'" in release(tree).stderr


def test_entries_that_are_still_unreleased_are_refused(tree):
    (tree / "CHANGELOG.md").write_text("## Unreleased\n\n- One.\n- Two.\n\n## 0.1.0\n\n- All.\n")
    commit(tree)
    assert "CHANGELOG.md has 2 entries under Unreleased" in release(tree).stderr


def test_what_is_not_committed_is_refused(tree):
    (tree / "CITATION.cff").write_text("version: 0.1.0\nmessage: cite\n")
    assert "changes that are not committed" in release(tree).stderr


def test_a_tag_that_exists_is_refused(tree):
    subprocess.run(["git", "tag", "v0.1.0"], cwd=tree, check=True)
    assert "the tag v0.1.0 exists" in release(tree).stderr


def test_a_tree_that_is_not_committed_is_never_uploaded(tree):
    result = release(tree, "--upload", "--dirty")
    assert result.returncode == 1
    assert "commit before --upload" in result.stderr


def test_the_three_files_name_one_version():
    assert f"version: {rlgrad.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {rlgrad.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_container_gets_all_that_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {*project["tool"]["setuptools"]["package-dir"].values()}
    copied = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
    sources = {source for line in copied for source in line.split()}
    assert sources == needed
    assert all((ROOT / source).exists() for source in sources)
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.M)
    assert all(any(fnmatch(source, pattern) for pattern in allowed) for source in sources)
