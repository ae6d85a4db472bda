"""The page of the server in a real browser: a case in, its segmentation out, other origins."""

from __future__ import annotations

import json
import time

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs pip install '.[serve]'")
from tests.browser import CHROMIUM, Browser
from tests.dicom_study import write_series
from tests.foreign_page import foreign_page

from .in_thread import ServerThread

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium in the PATH")


@pytest.fixture(scope="module")
def server(registry):
    with ServerThread(registry) as server:
        yield server


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser"), 1110, 620) as browser:
        yield browser


def opened(browser, server):
    browser.open(server.url)
    browser.wait("document.getElementById('model')?.value === 'tiny'")


def segmented(browser):
    browser.wait("!document.getElementById('segment').disabled")
    browser.run("document.getElementById('segment').click()")
    browser.wait("!document.getElementById('result').hidden")


def downloaded(browser, folder) -> bytes:
    folder.mkdir()
    browser.downloads_to(folder)
    browser.run("document.getElementById('download').click()")
    path, end = folder / "segmentation.nii.gz", time.monotonic() + 30
    while not path.is_file():
        assert time.monotonic() < end, list(folder.iterdir())
        time.sleep(0.05)
    return path.read_bytes()


@pytest.mark.parametrize("prior", ["sampled", "corrected"])
def test_a_dropped_case_is_segmented_seen_and_downloaded(browser, server, case_files, tmp_path,
                                                         prior):
    opened(browser, server)
    browser.drop(*case_files.values())
    browser.wait("document.querySelectorAll('#slots option:checked').length === 3 && "
                 "document.body.dataset.ready === '1'")
    assert browser.run("[...document.querySelectorAll('#slots option:checked')]"
                       ".map((each) => each.textContent)") == [
        path.name for path in case_files.values()]
    before = browser.canvas()
    browser.run(f"document.getElementById('prior').value = '{prior}'")
    segmented(browser)
    browser.wait("document.body.dataset.ready === '1'")
    controls = browser.controls()
    assert {"application", "button", "checkbox", "combobox", "link", "slider"} <= set(controls)
    assert not [role for role, names in controls.items() if not all(names)], controls
    found = downloaded(browser, tmp_path / "downloads")
    assert found == server.segment(case_files, prior)
    assert browser.canvas().shape == before.shape
    assert (browser.canvas() != before).any(axis=-1).sum() > 200
    rows = browser.run("[...document.querySelectorAll('#volumes tr')].map((row) => row.innerText)")
    (tmp_path / "found.nii.gz").write_bytes(found)
    image = nib.load(tmp_path / "found.nii.gz")
    voxel_ml = abs(np.linalg.det(image.affine[:3, :3])) / 1000
    for row, value in zip(rows, (1, 2, 4), strict=True):
        assert float(row.split()[-2]) == pytest.approx(
            (np.asarray(image.dataobj) == value).sum() * voxel_ml, abs=0.051)


def test_a_folder_of_dicom_is_a_case_like_its_nifti_files(browser, server, case_files, tmp_path):
    for number, (modality, path) in enumerate(case_files.items(), start=1):
        image = nib.load(path)
        write_series(tmp_path / "scan" / f"series{number}",
                     np.asarray(image.dataobj).astype(np.int16), image.affine,
                     f"ax {modality} pre", number=number)
    opened(browser, server)
    browser.drop(tmp_path / "scan")
    browser.wait("[...document.querySelectorAll('#slots option:checked')].map((each) => "
                 "each.textContent).join() === 'ax flair pre (6 slices),ax t1ce pre (6 slices),"
                 "ax t2 pre (6 slices)'")
    segmented(browser)
    (tmp_path / "found.nii.gz").write_bytes(downloaded(browser, tmp_path / "downloads"))
    (tmp_path / "expected.nii.gz").write_bytes(server.segment(case_files, "sampled"))
    found, expected = (nib.as_closest_canonical(nib.load(tmp_path / f"{name}.nii.gz"))
                       for name in ("found", "expected"))
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-4)
    assert (np.asarray(found.dataobj) == np.asarray(expected.dataobj)).mean() > 0.99


def test_what_is_wrong_with_a_case_is_said_and_another_one_is_taken(browser, server, case_files,
                                                                    tmp_path):
    opened(browser, server)
    broken = []
    for modality, path in case_files.items():
        image = nib.load(path)
        broken.append(tmp_path / f"<b>{modality}.nii")
        nib.save(nib.Nifti1Image(np.zeros(image.shape, np.int16), image.affine), broken[-1])
    browser.drop(*broken)
    browser.wait("!document.getElementById('segment').disabled")
    browser.run("document.getElementById('segment').click()")
    said = browser.wait("document.querySelector('#working.error')?.textContent")
    assert "empty" in said
    assert browser.run("document.querySelectorAll('#form b').length") == 0
    browser.drop(*case_files.values())
    browser.wait("document.getElementById('slot-0').selectedOptions[0].textContent === "
                 f"{json.dumps(case_files['flair'].name)}")
    segmented(browser)


def test_a_server_with_a_token_asks_for_it(browser, registry, case_files):
    with ServerThread(registry, token="secret") as server:
        browser.open(server.url)
        browser.wait("document.getElementById('token-field')?.hidden === false")
        for token, shown in (("wrong", False), ("secret", True)):
            browser.run(f"(() => {{ const field = document.getElementById('token'); field.value = "
                        f"'{token}'; field.dispatchEvent(new Event('change')); }})()")
            if shown:
                browser.wait("document.getElementById('model').value === 'tiny'")
            else:
                browser.wait("document.getElementById('working').textContent.includes('Bearer')")
        browser.drop(*case_files.values())
        segmented(browser)
        browser.call("Page.navigate", url="about:blank")


def test_nothing_of_the_page_breaks_its_own_policy(browser):
    asked = [text for text in browser.complaints() if "the server responded with" not in text]
    assert asked == []


#: What a page of another origin may try: to read, to send a case, to frame, to load as a script.
FOREIGN = """<!doctype html><meta charset="utf-8"><pre id="said">waiting</pre><script>
async function outcome(path, options) {
  try { const answer = await fetch("TARGET" + path, options); return answer.type; }
  catch (error) { return "refused"; }
}
function embedded(tag, address) {
  return new Promise((resolve) => {
    const made = document.createElement(tag);
    made.onload = () => {
      try { resolve(tag === "iframe" && made.contentDocument ? "own" : tag); }
      catch (error) { resolve("foreign"); }
    };
    made.onerror = () => resolve("refused");
    made.src = address;
    document.body.append(made);
  });
}
(async () => {
  const form = new FormData();
  form.append("flair", new Blob(["x"]), "flair.nii");
  const said = {reading: await outcome("v1/segment", {}),
    posting: await outcome("v1/segment", {method: "POST", body: form}),
    blind: await outcome("v1/segment", {method: "POST", mode: "no-cors", body: form}),
    script: await embedded("script", "TARGETviewer.js"), frame: await embedded("iframe", "TARGET")};
  document.getElementById("said").textContent = JSON.stringify(said);
})();
</script>"""


def test_other_origins_get_nothing(browser, server):
    before = len(server.requests)
    with foreign_page(FOREIGN.replace("TARGET", server.url)) as address:
        browser.open(address)
        said = json.loads(browser.wait(
            "document.getElementById('said')?.textContent.startsWith('{') "
            "&& document.getElementById('said').textContent"))
    assert (said["reading"], said["posting"], said["script"]) == ("refused",) * 3, said
    browser.open(f"http://rebound.example:{server.port}/")
    browser.wait("document.body && document.body.textContent.includes('--allowed-host')")
    asked = server.requests[before:]
    assert len(asked) >= 5
    assert {status for _, status in asked} == {403}, asked
