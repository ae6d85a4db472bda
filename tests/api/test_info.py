"""Which extras are there, told by what packages say that they bring."""

import importlib.metadata

import pytest

from pixelnet_tf.api.info import Info, _extras, machine_info


def test_every_extra_that_a_user_may_want_is_told_of():
    assert set(machine_info(measure=False).extras) == {
        "gpu", "report", "serve", "hdf5", "onnx", "tensorboard", "dicom", "cluster", "cloud", "io"}


#: Package -> version and requirements of an installation.
INSTALLED = {
    "mine": ("1", ["plain>=1", 'web>=1; extra == "serve"', 'forms>=2; extra == "serve"',
                   'net[fast]>=2.18; extra == "gpu"', 'tables; extra == "io"',
                   "tables ; python_version > '3' and extra == 'old'"]),
    "plain": ("1", None), "web": ("1", []), "forms": ("2", []), "tables": ("1", []),
    "net": ("2.18", ['card-library<13; extra == "fast"']), "card-library": ("12", []),
}


@pytest.fixture
def installed(monkeypatch):
    packages = dict(INSTALLED)

    def found(number):
        def ask(package):
            if package not in packages:
                raise importlib.metadata.PackageNotFoundError(package)
            return packages[package][number]

        return ask

    monkeypatch.setattr(importlib.metadata, "version", found(0))
    monkeypatch.setattr(importlib.metadata, "requires", found(1))
    return packages


@pytest.mark.parametrize(("missing", "absent"), [
    (None, set()), ("forms", {"serve"}), ("web", {"serve"}), ("net", {"gpu"}),
    # TensorFlow without the libraries of CUDA, which its own extra brings.
    ("card-library", {"gpu"}), ("tables", {"io", "old"}), ("plain", set())])
def test_an_extra_is_there_where_all_that_it_brings_is(installed, missing, absent):
    installed.pop(missing, None)
    found = _extras("mine")
    assert set(found) == {"serve", "gpu", "io", "old"}
    assert {extra for extra, there in found.items() if not there} == absent


def test_a_checkout_that_is_not_installed_has_no_extras_to_tell_of(installed):
    assert _extras("other") == {}


def test_the_line_of_extras():
    info = Info({}, "one", 1, (), 0, 0, (), "", "float32", False,
                extras={"serve": True, "gpu": False})
    assert info.lines()[-1] == "extras: serve; not there: gpu"
