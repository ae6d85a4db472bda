"""The public names: all there, loaded only when they are used."""

import subprocess
import sys

import pytest

import pixelnet_tf as px

QUICK = """
import sys, time
start = time.perf_counter()
import pixelnet_tf
seconds = time.perf_counter() - start
heavy = {"tensorflow", "keras", "nibabel", "SimpleITK", "scipy", "numpy"} & set(sys.modules)
assert not heavy, heavy
assert set(pixelnet_tf.__all__) <= set(dir(pixelnet_tf))
"""


def test_the_import_loads_nothing_heavy():
    subprocess.run([sys.executable, "-c", QUICK], check=True)


@pytest.mark.parametrize("name", px.__all__)
def test_every_name_is_there_and_says_what_it_is(name):
    found = getattr(px, name)
    assert name == "__version__" or found.__doc__


def test_another_name_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        _ = px.Segmentor


def test_scans_can_be_read_without_tensorflow():
    code = ("import sys, pixelnet_tf as px; px.Study; px.evaluate; px.load_config; "
            "assert 'tensorflow' not in sys.modules")
    subprocess.run([sys.executable, "-c", code], check=True)
