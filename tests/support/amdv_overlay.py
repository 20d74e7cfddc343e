"""What is laid over an emulated host's root directory: our binaries, tests, tools, each with the libraries it needs."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "guest-images" / "linux"))
import debian_kernel  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PYTHON_LEFT_OUT = {"test", "idlelib", "lib2to3", "pydoc_data", "tkinter", "ensurepip", "distutils"}
# Where the tree is there; build/ in it holds what was built.
PLACE = "/godwit"


def certificates(build):
    """For both hosts, by their addresses; made once, and anew a month before they end."""
    directory = build / "amdv" / "tls"
    fresh = directory / "host" / "cert.pem"
    if not fresh.exists() or time.time() - fresh.stat().st_mtime > 330 * 86400:
        shutil.rmtree(directory, ignore_errors=True)
        subprocess.run([ROOT / "tools" / "make-certs", directory, "host,127.0.0.1,10.9.0.1,10.9.0.2"], check=True,
                       stdout=subprocess.DEVNULL)
    return directory / "host"


class Overlay:
    """Files for the emulated host, laid over its root directory."""

    def __init__(self):
        self.files = {}

    def add(self, source, target):
        """A file, or a directory with all in it but what Python makes."""
        source = Path(source)
        if source.is_dir():
            for path in source.rglob("*"):
                if path.is_file() and "__pycache__" not in path.parts:
                    self.files[f"{target}/{path.relative_to(source)}"] = path
        else:
            self.files[str(target)] = source
        return self

    def add_program(self, source, target=None):
        """A program with its shared libraries."""
        self.add(source, target or source)
        self.add_libraries(source)
        return self

    def add_libraries(self, *objects):
        for line in subprocess.run(["ldd", *map(str, objects)], capture_output=True, check=False,
                                   text=True).stdout.splitlines():
            words = line.split()
            path = next((word for word in words if word.startswith("/") and not word.endswith(":")), None)
            if path is not None:
                self.add(path, path)

    def add_python(self):
        """python3 with its library, and jsonschema with what it imports."""
        python = Path("/usr/bin/python3").resolve()
        library = Path("/usr/lib") / python.name
        self.add_program(python, "/usr/bin/python3")
        for path in library.rglob("*"):
            if path.is_file() and not PYTHON_LEFT_OUT.intersection(path.relative_to(library).parts):
                self.files[str(path)] = path
        self.add_libraries(*(library / "lib-dynload").glob("_[ch]*.so"))
        packages = Path("/usr/lib/python3/dist-packages")
        for pattern in ("jsonschema*", "attr*", "pyrsistent*", "pvectorc*"):
            for path in packages.glob(pattern):
                self.add(path, path)
        return self

    def add_build(self, build, linux=False):
        """The binaries and the guests, and the tools that a test or a user of two hosts needs. `linux`: with its guest.
        Name `ip` and `tc` there by their path: the shell takes busybox's own, which know less."""
        for name in ("vmm", "gated_vmm", "hostile_manifest", "host_tsc"):
            self.add_program(build / "bin" / name, f"{PLACE}/build/bin/{name}")
        for path in (*(build / "guests").glob("*.*"), *((build / "guests/linux").glob("*") if linux else ())):
            self.add(path, f"{PLACE}/build/guests/{path.relative_to(build / 'guests')}")
        for tool in ("ip", "tc", "bridge", "socat"):
            path = shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
            if path is None:
                raise debian_kernel.Unavailable(f"needs {tool} (Debian packages iproute2, socat)")
            self.add_program(path, f"{PLACE}/build/bin/{tool}")
        for name in ("ca", "cert", "key"):
            self.add(certificates(build) / f"{name}.pem", f"{PLACE}/build/tls/{name}.pem")
        for script in ("on-b", "on-b-server"):
            self.add(Path(__file__).with_name(f"amdv_{script}"), f"{PLACE}/build/bin/{script}")
        return self

    def add_tests(self):
        """The integration tests, and Python to run them."""
        for name in ("tests/integration", "tests/support", "tests/guests", "guest-images/linux", "docs",
                     "tools"):
            self.add(ROOT / name, f"{PLACE}/{name}")
        return self.add_python()

    def pack(self, archive):
        with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
            for target, source in self.files.items():
                place = Path(scratch) / target.lstrip("/")
                place.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(source.resolve(), place)
                except OSError:
                    shutil.copy(source, place)
            debian_kernel.pack(scratch, archive)


def packed(cache, build, linux=False, tests=False):
    """The archive with what was built, and with the Linux guest and the tests; made when something in it is newer."""
    archive = cache.directory / f"build{'-linux' if linux else ''}{'-tests' if tests else ''}.cpio"
    with debian_kernel.locked(cache.directory):
        files = Overlay().add_build(Path(build).resolve(), linux)
        if tests:
            files.add_tests()
        sources = [*files.files.values(), Path(__file__)]
        if not archive.exists() or archive.stat().st_mtime < max(Path(source).stat().st_mtime for source in sources):
            files.pack(archive)
    return archive
