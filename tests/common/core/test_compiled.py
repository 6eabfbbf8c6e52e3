# SPDX-License-Identifier: MIT
"""The optional compiled build, as far as it can be tested without minutes of compiling.

`make test-compiled` builds it, and runs all tests with it.
"""

import ast
import importlib.util
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from skbus.bus.version import is_compiled
from skbus.core.compiled import field_names
from skbus.inet.headers.tcp import TcpOptions

ROOT = Path(__file__).parents[3]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Any:
    """hatch_build.py as hatchling loads it; hatchling itself need not be installed."""

    class BuildHookInterface:
        root = str(ROOT)
        target_name = "wheel"

        def __class_getitem__(cls, _: object) -> type:
            return cls

    interface = ModuleType("hatchling.builders.hooks.plugin.interface")
    interface.BuildHookInterface = BuildHookInterface  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_compiled_exists_and_is_what_mypyc_takes(build: Any) -> None:
    paths = build.modules(ROOT)
    assert len(paths) == len(set(paths)) > 50
    for path in paths:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.ImportFrom):
                assert [name.name for name in node.names] != ["*"], f"{path}: import *"
            if isinstance(node, ast.ImportFrom | ast.Import):
                names = [name.name for name in node.names]
                assert "ctypes" not in names, f"{path}: an object's address outlives it"


def test_a_module_that_is_gone_is_named(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "COMPILED", "\ncommon/skbus: codec\n  gone\n")
    with pytest.raises(build.CompileError, match=r"common/skbus/gone\.py"):
        build.modules(ROOT)


def test_without_mypy_it_says_what_to_install(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mypyc", None)
    monkeypatch.setitem(sys.modules, "mypyc.build", None)
    with pytest.raises(build.CompileError, match="pip install mypy setuptools"):
        build.check_tools()


def test_without_a_compiler_it_says_what_to_install(
    build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mypyc", "mypyc.build", "setuptools"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setenv("CC", "no-such-compiler -O1")
    with pytest.raises(build.CompileError, match=r"no 'no-such-compiler': apt-get install gcc"):
        build.check_tools()


@pytest.mark.parametrize("value", [None, "", "0"])
def test_the_wheel_is_pure_unless_asked(
    build: Any, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("SKBUS_COMPILE", raising=False)
    if value is not None:
        monkeypatch.setenv("SKBUS_COMPILE", value)
    hook = build.CompiledBuildHook()
    build_data: dict[str, Any] = {}
    hook.initialize("standard", build_data)
    assert build_data == {}
    assert hook.dependencies() == []


def test_asked_for_it_compiles_and_the_wheel_is_of_the_platform(
    build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKBUS_COMPILE", "1")
    monkeypatch.setattr(build, "compile_modules", lambda root, work: {"made.so": "skbus/made.so"})
    hook = build.CompiledBuildHook()
    build_data: dict[str, Any] = {"force_include": {}}
    hook.initialize("standard", build_data)
    assert build_data == {
        "force_include": {"made.so": "skbus/made.so"},
        "pure_python": False,
        "infer_tag": True,
    }
    assert any(name.startswith("mypy") for name in hook.dependencies())
    with pytest.raises(build.CompileError, match="cannot be edited"):
        hook.initialize("editable", build_data)


def test_auto_compiles_where_that_is_possible(build: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKBUS_COMPILE", "auto")
    monkeypatch.setattr(build, "lacking", lambda: "")
    monkeypatch.setattr(build, "compile_modules", lambda root, work: {"made.so": "skbus/made.so"})
    hook = build.CompiledBuildHook()
    build_data: dict[str, Any] = {"force_include": {}}
    hook.initialize("standard", build_data)
    assert build_data["force_include"] == {"made.so": "skbus/made.so"}
    assert build_data["pure_python"] is False
    assert any(name.startswith("mypy") for name in hook.dependencies())
    editable: dict[str, Any] = {}
    hook.initialize("editable", editable)
    assert editable == {}


def test_auto_says_in_a_line_what_is_missing_and_builds_the_pure_wheel(
    build: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SKBUS_COMPILE", "auto")
    monkeypatch.setenv("CC", "no-such-compiler -O1")
    hook = build.CompiledBuildHook()
    build_data: dict[str, Any] = {}
    hook.initialize("standard", build_data)
    assert build_data == {}
    assert hook.dependencies() == []
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("==> not compiled: that needs a C compiler, and there is no 'no-such-")


def test_compiled_wheels_for_both_processors() -> None:
    """cibuildwheel's configuration: each Python that skbus takes, and the compiled build alone."""
    table = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    assert table["linux"]["archs"] == ["x86_64", "aarch64"]
    assert table["build"].split()[0] == "cp311-*"
    assert table["environment"] == {"SKBUS_COMPILE": "1"}


def test_the_names_of_a_class_s_fields() -> None:
    class Parent:
        __slots__ = ("__dict__", "a")
        b: int = 1

    class Child(Parent):
        __slots__ = ("c",)

    assert sorted(field_names(Child)) == ["a", "b", "c"]
    assert sorted(field_names(SimpleNamespace)) == []
    assert "sacks" in field_names(TcpOptions)


def test_it_is_known_whether_the_code_is_compiled() -> None:
    import skbus.bus.dispatch

    assert is_compiled() == (not str(skbus.bus.dispatch.__file__).endswith(".py"))
