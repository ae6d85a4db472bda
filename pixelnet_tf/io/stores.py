"""Object stores: the few things that are asked of one, by fsspec or by TensorFlow's file systems.

Nothing here is loaded before a URL is given. What stands in a store are whole objects: each is put
in one request, or in parts that appear together, so that nobody ever reads half of one.
"""

from __future__ import annotations

import enum
import importlib
import importlib.metadata
import importlib.util
import os
import posixpath
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from pixelnet_tf.errors import ConfigError

#: Says which of the two is used: `fsspec` or `tensorflow`; by default whichever is there.
VARIABLE = "PIXELNET_STORE"
#: What is installed for a scheme beside fsspec itself.
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs",
             "az": "adlfs"}
#: A connection that is not made, and an answer that does not begin, in seconds.
_CONNECT_SECONDS, _ANSWER_SECONDS = 5, 60
#: Errors by which libraries say that there are no credentials, or none that hold; by name, as their
#: modules are not loaded here.
_REFUSED = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError",
            "TokenRetrievalError", "UnauthorizedSSOTokenError", "ProfileNotFound",
            "NoAuthTokenError", "DefaultCredentialsError", "UnauthenticatedError",
            "PermissionDeniedError")
#: ... and that nothing can be found under a name of this form.
_SENSELESS = ("ParamValidationError", "InvalidArgumentError", "UnimplementedError")


class Fault(enum.Enum):
    """What an error of a store means."""

    MISSING = "missing"
    REFUSED = "refused"
    #: The name, or the way that it was asked for, has no sense to this store.
    SENSELESS = "senseless"
    #: It may pass: no connection, no answer, too many requests.
    PASSING = "passing"


class Store(Protocol):
    """What is asked of a folder in a store. Names are paths in it; errors are the library's own,
    of which `fault` says what they mean.

    Attributes:
        url: of the folder, without a slash at its end.
        way: by what it is reached, as a line says it.
        tries: how often whoever asks may ask again; some libraries do it themselves.
    """

    url: str
    way: str
    tries: int

    def list(self) -> dict[str, int]:
        """Every object in the folder and below it: name -> bytes.

        An empty folder is none; raises FileNotFoundError where the bucket itself is not there.
        """

    def get(self, name: str, path: str) -> None:
        """Copy an object into a file of this machine."""

    def put(self, path: str, name: str) -> None:
        """Copy a file of this machine into an object; what was there is replaced, in one moment."""

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is passed over."""

    def read(self, name: str) -> bytes | None:
        """A small object's bytes; None where there is none."""

    def create(self, name: str, data: bytes) -> bool:
        """Put an object where there is none of its name; False where there is one.

        Where the store knows no such request, another program may come between the two.
        """

    def fault(self, error: Exception) -> Fault:
        """What an error of the others means."""


def open_store(url: str) -> Store:
    """A folder of a store, by the way that `VARIABLE` names or that is installed.

    Raises:
        ConfigError: neither is, or the variable names something else.
    """
    scheme = url.partition("://")[0]
    package = _PACKAGES.get(scheme)
    here = importlib.util.find_spec("fsspec") and (
        package is None or importlib.util.find_spec(package))
    way = os.environ.get(VARIABLE) or (
        "fsspec" if here or not importlib.util.find_spec("tensorflow_io") else "tensorflow")
    if way == "tensorflow":
        return GfileStore(url)
    if way != "fsspec":
        raise ConfigError(f"{VARIABLE} is {way!r}: it must be fsspec or tensorflow", value=way)
    if not here:
        # gcsfs and adlfs are in no extra: whoever has such a store installs them.
        missing = "fsspec" if package in (None, "s3fs") else package
        raise ConfigError(
            f"cannot be reached: {package or 'fsspec'} is not installed", file=url, value=missing,
            hint='in the folder of pixelnet-tf run: pip install ".[cloud]"' + (
                "" if missing == "fsspec" else f" {package}"))
    return FsspecStore(url)


class FsspecStore:
    """A folder of a store through fsspec, whatever scheme it knows: s3, gs, memory, file, ..."""

    tries = 5

    def __init__(self, url: str):
        fsspec = importlib.import_module("fsspec")
        self.url = url
        scheme = url.partition("://")[0]
        options: dict[str, Any] = {}
        if _PACKAGES.get(scheme) == "s3fs":
            options = {"use_listings_cache": False, "config_kwargs": {
                "connect_timeout": _CONNECT_SECONDS, "read_timeout": _ANSWER_SECONDS,
                "retries": {"mode": "standard", "total_max_attempts": 1}}}
        elif scheme == "file":
            options = {"auto_mkdir": True}
        try:
            self._fs, root = fsspec.core.url_to_fs(url, **options)
        except (ValueError, ImportError) as error:
            raise ConfigError(f"cannot be reached: {error}", file=url,
                              hint="give a URL of a scheme that fsspec knows, with its package "
                                   "installed") from None
        if _PACKAGES.get(scheme) == "s3fs":
            # Tries again are counted by whoever asks.
            self._fs.retries = 1
        self._root = root.rstrip("/")
        package = _PACKAGES.get(scheme, "fsspec")
        self.way = (f"fsspec ({package} {importlib.metadata.version(package)})"
                    if package != "fsspec" else f"fsspec {fsspec.__version__}")

    def list(self) -> dict[str, int]:
        self._fs.invalidate_cache()
        beginning = self._root.lstrip("/") + "/"
        found = {name.lstrip("/").removeprefix(beginning): int(about["size"] or 0)
                 for name, about in self._fs.find(self._root, detail=True).items()
                 if name.lstrip("/").startswith(beginning)}
        if not found and self.url.partition("://")[0] in _PACKAGES:
            try:
                # An empty listing may be that of a bucket which is not there.
                self._fs.ls(self._root.split("/")[0])
            except PermissionError:
                # Some may list a part of a bucket alone.
                self._fs.ls(self._root)
        return found

    def get(self, name: str, path: str) -> None:
        self._fs.get_file(self._path(name), path)

    def put(self, path: str, name: str) -> None:
        self._fs.put_file(path, self._path(name))

    def delete(self, name: str) -> None:
        try:
            self._fs.rm_file(self._path(name))
        except FileNotFoundError:
            pass

    def read(self, name: str) -> bytes | None:
        try:
            self._fs.invalidate_cache()
            return bytes(self._fs.cat_file(self._path(name)))
        except FileNotFoundError:
            return None

    def create(self, name: str, data: bytes) -> bool:
        path = self._path(name)
        if self.url.startswith("file:"):
            # fsspec asks and writes; the system does both at once.
            os.makedirs(posixpath.dirname(path), exist_ok=True)
            try:
                with open(path, "xb") as file:
                    file.write(data)
            except FileExistsError:
                return False
            return True
        try:
            self._fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except (NotImplementedError, TypeError):
            if self.read(name) is not None:
                return False
            self._fs.pipe_file(path, data)
        except OSError as error:
            # S3's answers to `If-None-Match`: it is there, or comes just now.
            if not any(word in str(error) for word in
                       ("PreconditionFailed", "ConditionalRequestConflict", "pre-condition")):
                raise
            return False
        return True

    def fault(self, error: Exception) -> Fault:
        names = {each.__name__ for each in type(error).__mro__}
        if isinstance(error, FileNotFoundError):
            return Fault.MISSING
        if isinstance(error, PermissionError) or names & set(_REFUSED):
            return Fault.REFUSED
        if isinstance(error, (ValueError, TypeError)) or names & set(_SENSELESS):
            return Fault.SENSELESS
        return Fault.PASSING

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


class GfileStore:
    """A folder of a store through TensorFlow's file systems: `gs://` where TensorFlow brings it,
    `s3://` by tensorflow-io."""

    #: tensorflow-io itself tries for 25 s to reach a server.
    tries = 2

    def __init__(self, url: str):
        self.url = url
        tensorflow = importlib.import_module("tensorflow")
        self._gfile, self._errors = tensorflow.io.gfile, tensorflow.errors
        self.way = f"TensorFlow {tensorflow.__version__}"
        if url.startswith("s3://"):
            _name_endpoint()
        scheme = url.partition("://")[0]
        try:
            # Of its own TensorFlow has gs:// alone.
            if scheme not in ("gs", "file"):
                found = importlib.import_module("tensorflow_io")
                self.way = f"tensorflow-io {found.__version__} ({self.way})"
            # A library that was built for another TensorFlow is left out by itself.
            self._gfile.exists(f"{scheme}://")
        except (ImportError, NotImplementedError, tensorflow.errors.UnimplementedError) as error:
            raise ConfigError(
                f"cannot be reached: TensorFlow {tensorflow.__version__} knows no {scheme}:// "
                f"({str(error).splitlines()[0]})", file=url,
                hint=f"install requirements-io.txt, or set {VARIABLE}=fsspec") from None
        except tensorflow.errors.OpError:
            # There is no bucket in it.
            pass

    def list(self) -> dict[str, int]:
        # Asked before and after, as a walk takes a store that does not answer for an empty one.
        bucket = "/".join(self.url.split("/")[:3]) + "/"
        self._gfile.stat(bucket)
        beginning = self.url + "/"
        names = [posixpath.join(folder, name).removeprefix(beginning)
                 for folder, _, files in self._gfile.walk(self.url) for name in files]
        with ThreadPoolExecutor(16) as pool:
            sizes = list(pool.map(
                lambda name: int(self._gfile.stat(self._path(name)).length), names))
        self._gfile.stat(bucket)
        return dict(zip(names, sizes, strict=True))

    def get(self, name: str, path: str) -> None:
        self._gfile.copy(self._path(name), path, overwrite=True)

    def put(self, path: str, name: str) -> None:
        if not os.path.getsize(path):
            # TensorFlow's S3 makes no object of a file without a byte by copying it.
            with self._gfile.GFile(self._path(name), "wb") as file:
                file.write(b"")
            return
        self._gfile.copy(path, self._path(name), overwrite=True)

    def delete(self, name: str) -> None:
        try:
            self._gfile.remove(self._path(name))
        except self._errors.NotFoundError:
            pass

    def read(self, name: str) -> bytes | None:
        try:
            with self._gfile.GFile(self._path(name), "rb") as file:
                return bytes(file.read())
        except self._errors.NotFoundError:
            return None

    def create(self, name: str, data: bytes) -> bool:
        if self.read(name) is not None:
            return False
        with self._gfile.GFile(self._path(name), "wb") as file:
            file.write(data)
        return self.read(name) == data

    def fault(self, error: Exception) -> Fault:
        names = {each.__name__ for each in type(error).__mro__}
        text = str(error)
        if names & set(_REFUSED) or "403" in text or "Access Denied" in text:
            return Fault.REFUSED
        if isinstance(error, self._errors.NotFoundError):
            return Fault.MISSING
        if names & set(_SENSELESS):
            return Fault.SENSELESS
        return Fault.PASSING

    def _path(self, name: str) -> str:
        return f"{self.url}/{name}"


def _name_endpoint() -> None:
    """Tell tensorflow-io, by the variables that it knows, of the endpoint that AWS' own names."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint and "S3_ENDPOINT" not in os.environ:
        os.environ["S3_ENDPOINT"] = endpoint
        os.environ.setdefault("S3_VERIFY_SSL", str(int(endpoint.startswith("https"))))
    # It tries ten times otherwise, for a minute; tries again are counted by whoever asks.
    os.environ.setdefault("AWS_MAX_ATTEMPTS", "1")
    os.environ.setdefault("S3_CONNECT_TIMEOUT_MSEC", str(1000 * _CONNECT_SECONDS))
    os.environ.setdefault("S3_REQUEST_TIMEOUT_MSEC", str(1000 * _ANSWER_SECONDS))
