"""The table of dependencies is that of pyproject.toml, and the tool reads what packages and locks say."""

from __future__ import annotations

import json
import sys
from email.message import Message
from types import SimpleNamespace

import pytest
import tooling
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from gsdistill.doctor import machine

pytest.importorskip("tomllib")  # of Python 3.11
dependencies = tooling.tool("../.ci/dependencies")

FOUND = json.loads(dependencies.RESULTS.read_text(encoding="utf-8"))
FREE = ("ruff", "pyright", "pre-commit")  # programs that are run, whose newest release is taken


def test_the_table_is_that_of_the_project():
    wanted = dependencies.requirements()
    assert {row["name"]: (row["extra"], row["bounds"]) for row in FOUND["packages"]} == wanted
    assert wanted.keys() == dependencies.PURPOSES.keys()
    assert dependencies.RESULTS.with_suffix(".md").read_text(encoding="utf-8") == dependencies.markdown(FOUND)


def test_every_dependency_has_both_bounds():
    for name, (_, bounds) in dependencies.requirements().items():
        assert bounds.startswith(">=") and (",<" in bounds or name in FREE), name


def test_every_licence_is_told():
    assert all(row["licence"] not in ("", "not told") for row in FOUND["packages"])


def test_the_lowest_trial_has_the_lowest_versions():
    held = FOUND["trials"]["lowest"]["versions"]
    for row in FOUND["packages"]:
        lowest = row["bounds"].partition(",")[0].removeprefix(">=")
        assert numbers(held[row["name"]])[: len(numbers(lowest))] == numbers(lowest), row["name"]


def numbers(version: str) -> list[int]:
    return [int(part) for part in version.partition("+")[0].split(".")]


@pytest.mark.parametrize(
    ("headers", "files", "told"),
    [
        ({"License-Expression": "MIT", "License": "other"}, {}, "MIT"),
        ({"License": "BSD"}, {}, "BSD"),
        ({"License": "x" * 99, "Classifier": "License :: OSI Approved :: MIT License"}, {}, "MIT License"),
        ({}, {"LICENSE": "\n  Apache License \n x"}, "Apache License"),
        ({}, {"README": "MIT"}, "not told"),
    ],
)
def test_a_licence_in_few_words(headers, files, told):
    message = Message()
    for name, value in headers.items():
        message[name] = value
    made = [SimpleNamespace(name=name, read_text=lambda text=text: text) for name, text in files.items()]
    assert dependencies.licence(SimpleNamespace(metadata=message, files=made)) == told


def test_a_lock_tells_the_newest_release_and_its_last_file():
    lock = "".join(
        f'[[package]]\nname = "{name}"\nversion = "{version}"\n'
        f'sdist = {{ upload-time = "{day}T10:00:00Z" }}\nwheels = [{{ upload-time = "2020-01-01T10:00:00Z" }}]\n'
        for name, version, day in (("a", "1.9", "2024-05-05"), ("a", "1.10", "2025-05-05"), ("b", "2", "2026-01-01"))
    )
    assert dependencies.release(lock, "a") == ("1.10", "2025-05-05")


def test_a_report_of_pytest_is_counted(tmp_path):
    report = tmp_path / "tests.xml"
    report.write_text('<testsuites><testsuite tests="9" failures="1" errors="2" skipped="3"/></testsuites>')
    assert dependencies.counts(report) == {"passed": 3, "failed": 3, "skipped": 3}


def test_a_program_that_is_missing_or_fails_is_told():
    with pytest.raises(SystemExit, match="no-such-program is not installed"):
        dependencies.run(["no-such-program"])
    with pytest.raises(SystemExit, match="told why"):
        dependencies.run([sys.executable, "-c", "import sys; sys.exit('told why')"])


def test_the_pins_serve_every_python_and_name_every_dependency_within_its_bounds():
    lines = dependencies.PINS.read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    assert "://" not in "".join(lines)
    for python in dependencies.PYTHONS:
        place = {
            "python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux",
            "platform_machine": "x86_64",
        }  # fmt: skip
        here = {
            canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
            for pin in pins
            if pin.marker is None or pin.marker.evaluate(place)
        }
        for name, (_, bounds) in dependencies.requirements().items():
            assert SpecifierSet(bounds).contains(here[name]), (python, name)


def test_the_heads_of_the_pins_are_those_that_doctor_reads():
    lines = dependencies.PINS.read_text(encoding="utf-8").splitlines()
    ran = next(line.removeprefix(machine.RAN).split() for line in lines if line.startswith(machine.RAN))
    others = next(line.partition(": ")[2].split() for line in lines if line.startswith("# only resolved for"))
    assert ran and sorted(ran + others) == sorted(dependencies.PYTHONS)
