# SPDX-License-Identifier: Apache-2.0
"""Compile relay/relay.c for one architecture, and look whether what came out is a static program for it."""

from __future__ import annotations

import json
import platform
import re
import shutil
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).resolve().parent.parent / "relay/relay.c"
ELFCLASS64, ELFDATA2LSB = 2, 1
PT_DYNAMIC, PT_INTERP, DT_NEEDED = 2, 3, 1


class Architecture(NamedTuple):
    """How zig calls it, and what its ELF header says."""

    target: list[str]
    machine: int
    byte_order: str


ARCHITECTURES = {
    "x86_64": Architecture(["x86_64-linux-musl"], 62, "<"),
    "aarch64": Architecture(["aarch64-linux-musl"], 183, "<"),
    "armv7": Architecture(["arm-linux-musleabihf", "-mcpu=generic+v7a"], 40, "<"),
    "riscv64": Architecture(["riscv64-linux-musl"], 243, "<"),
    "ppc64le": Architecture(["powerpc64le-linux-musl"], 21, "<"),
    "s390x": Architecture(["s390x-linux-musl"], 22, ">"),
}
FLAGS = [
    "-std=c11", "-Os", "-s",
    "-Werror", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Wformat=2",
    "-fstack-protector-strong", "-fPIE",
    # Nothing unwinds a stack, and what is not called is left out.
    "-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-ffunction-sections", "-fdata-sections",
    "-Wl,--gc-sections", "-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack",
]  # fmt: skip
# zig brings musl along, and makes static, position-independent programs as it is; musl knows no _FORTIFY_SOURCE.
GCC_FLAGS = ["-static-pie", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]
MUSL_FLAGS = ["-nostartfiles", "-Wl,-static,-pie,--no-dynamic-linker,-z,text"]  # -static-pie, which musl-gcc does not know
MISSING = {
    "zig": f"no zig here: {sys.executable} -m pip install ziglang",
    "musl-gcc": "no musl-gcc here (Debian: apt-get install gcc musl-tools)",
    "gcc": "no gcc here (Debian: apt-get install gcc libc6-dev)",
}


class CompileError(Exception):
    """The relay cannot be compiled; the text says what is missing."""


def here() -> str:
    """Return this machine's architecture."""
    machine = platform.machine()
    return "armv7" if machine == "armv7l" else machine


def choose(wanted: str = "") -> str:
    """Return the compiler to use: zig, musl-gcc or gcc. The last one's programs take twice as long to start. Raises CompileError."""
    found = [name for name in MISSING if (find_spec("ziglang") if name == "zig" else shutil.which(name))]
    if wanted and wanted not in found:
        raise CompileError(MISSING[wanted])
    if not found:
        raise CompileError(f"no C compiler here: {sys.executable} -m pip install ziglang, or (Debian) apt-get install gcc musl-tools")
    return wanted or found[0]


def command(compiler: str, architecture: str) -> list[str]:
    """Return the compiler and its options for a source that follows. Raises CompileError."""
    if compiler != "zig":
        if architecture != here():
            raise CompileError(f"{compiler} makes programs for {here()} only; for {architecture}: {sys.executable} -m pip install ziglang")
        return [compiler, *FLAGS, *(GCC_FLAGS if compiler == "gcc" else [*MUSL_FLAGS, _musl_start()])]
    if architecture not in ARCHITECTURES:
        raise CompileError(f"no relay for {architecture} by zig; there is one for {', '.join(ARCHITECTURES)}")
    return [sys.executable, "-m", "ziglang", "cc", "-target", *ARCHITECTURES[architecture].target, *FLAGS]


def _musl_start() -> str:
    """Return the object file that begins a static, position-independent program, beside the one that musl-gcc would link."""
    told = subprocess.run(["musl-gcc", "-###", "-x", "c", "/dev/null"], capture_output=True, text=True, check=False).stderr
    found = re.search(r"[^\s\"]*/Scrt1\.o", told)
    if not found:
        raise CompileError(f"musl-gcc does not say where its Scrt1.o is:\n{told}")
    return str(Path(found[0]).with_name("rcrt1.o"))


def compile_relay(output: Path, architecture: str, version: str, compiler: str) -> None:
    """Make the file `output`. Raises CompileError."""
    options = [f"-DVERSION={json.dumps(version, ensure_ascii=False)}", str(SOURCE), "-o", str(output)]
    done = subprocess.run([*command(compiler, architecture), *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(f"{compiler} fails for {architecture}:\n{done.stderr}")
    if trouble := fault(output.read_bytes(), architecture):
        raise CompileError(f"{compiler} made {output}, which {trouble}")


def fault(program: bytes, architecture: str) -> str:
    """Say what keeps this ELF file from being a static program for the architecture; "" where nothing does."""
    if program[:4] != b"\x7fELF":
        return "is no ELF file"
    wide, order = program[4] == ELFCLASS64, "<" if program[5] == ELFDATA2LSB else ">"
    if known := ARCHITECTURES.get(architecture):
        machine: int = struct.unpack_from(order + "H", program, 18)[0]
        if (machine, order) != (known.machine, known.byte_order):
            return f"is for machine {machine} and not for {architecture}"
    header, entry_size, count = _fields(program, order, [("Q", 32), ("H", 54), ("H", 56)] if wide else [("I", 28), ("H", 42), ("H", 44)])
    for place in range(header, header + entry_size * count, entry_size):
        kind = struct.unpack_from(order + "I", program, place)[0]
        if kind == PT_INTERP:
            return "needs a dynamic loader"
        offset, size = _fields(program, order, [("Q", place + 8), ("Q", place + 32)] if wide else [("I", place + 4), ("I", place + 16)])
        tags = struct.iter_unpack(order + ("QQ" if wide else "II"), program[offset : offset + size]) if kind == PT_DYNAMIC else ()
        if any(tag == DT_NEEDED for tag, _ in tags):
            return "needs shared libraries"
    return ""


def _fields(program: bytes, order: str, places: list[tuple[str, int]]) -> list[int]:
    return [struct.unpack_from(order + kind, program, place)[0] for kind, place in places]
