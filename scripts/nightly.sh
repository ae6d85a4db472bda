#!/usr/bin/env bash
# What takes longer than continuous integration allows: damaged files for half an hour, 1,000 flips
# and cuts of what the product writes, power cuts and kills of every verb, the README's lines as they
# stand, the main job from its first verb to a picture, memory over a training, a server under load
# and under attack.
#
#   bash scripts/nightly.sh [OUT [CHECK...]]
#
# Prints a line a check; what each one said goes to OUT/<check>.log (default: nightly/). Exit code 1
# where one failed. With names of checks, these alone are run (report, cross-validation, memory, export,
# load, viewer-bridge and attack read what main-job and export have left in OUT). FUZZ_SECONDS (default 1800) is the
# time of each of the two: damaged files of every kind that the product reads, and mutants of models.
# Where PIXELNET_SHARED/data holds real scans (default: ../shared/data), they go through plan, prepare, run
# and predict in every form.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
out=${1:-nightly}
wanted=" ${*:2} "
mkdir -p "$out"
make_environment test || exit 1

export TF_CPP_MIN_LOG_LEVEL=2
FUZZ_SECONDS=${FUZZ_SECONDS:-1800}
failed=0

# check NAME COMMAND...: run a command, its words into a log, and print one line.
check() {
    local name=$1 start=$SECONDS status
    shift
    [[ $wanted == "  " || $wanted == *" $name "* ]] || return 0
    "$@" >"$out/$name.log" 2>&1
    status=$?
    if [[ $status -eq 0 ]]; then
        printf 'ok      %-16s %5d s  %s\n' "$name" "$((SECONDS - start))" "$(tail -n 1 "$out/$name.log")"
    else
        printf 'FAILED  %-16s %5d s  exit code %d, see %s\n' "$name" "$((SECONDS - start))" \
            "$status" "$out/$name.log"
        failed=1
    fi
}

# The log ends with a table of the lines that no test reaches, worker processes included.
check coverage bash scripts/test.sh --cov -q
check files env PIXELNET_FUZZ_SECONDS="$FUZZ_SECONDS" python -m pytest -q tests/test_fuzz_files.py
check mutants python scripts/fuzz.py --seconds "$FUZZ_SECONDS" --seed "$(date +%Y%m%d)" \
    --keep "$out/mutants"
check flipped-bytes python scripts/flip_bytes.py --seed "$(date +%Y%m%d)"
check power-cuts python scripts/power_cuts.py --cuts 200 --resumes 20 --kills \
    --seed "$(date +%Y%m%d)"
if [[ $(id -u) -eq 0 && -e /dev/loop-control ]]; then
    check ext4 python scripts/power_cut_ext4.py
fi
if command -v npm >/dev/null; then
    # What the committed page is made of, built anew from the registry's packages.
    check viewer-page bash scripts/build_viewer.sh --check
fi
check locks env PIXELNET_LOCK_SECONDS=60 python -m pytest -q tests/io/test_locks.py
# Job scripts and workers on a Slurm that the test starts, where Debian's slurm-wlm is installed.
check slurm env PIXELNET_SLURM=1 python -m pytest -q -rs tests/cli/test_slurm.py
# All transfers of a training cut off; the main job in a real S3 API, killed and cut off, by fsspec and
# by tensorflow-io with TensorFlow 2.16.
check store-cuts env PIXELNET_ALL_CUTS=1 python -m pytest -q tests/api/test_stores.py
check store python scripts/check_store.py "$out/store"
check store-io bash scripts/test_io.sh "$out/store-io"
# Cases by several programs and workers at once, an experiment on workers, a worker that falls silent.
check scale env PIXELNET_SCALE=1 python -m pytest -q -rs tests/cli/test_scale.py \
    tests/training/test_replicas.py
check readme env PIXELNET_WHOLE_README=1 python -m pytest -q tests/test_packaging.py -k readme
check main-job bash scripts/quickstart.sh "$out/main-job"
check report pixelnet-tf report "$out/main-job/job/run" --predictions "$out/main-job/job/predictions" \
    --scores "$out/main-job/job/scores" --references "$out/main-job/study" \
    --data "$out/main-job/job/prepared" --out "$out/main-job/report.html"
# Three folds of the phantom, their scores out of fold, and the average of their networks.
check cross-validation bash -c 'rm -rf "$1/folds" && set -e
    pixelnet-tf prepare --config phantom --set split.folds=3 --data "$1/study" --out "$1/folds/prepared"
    pixelnet-tf train --config phantom --set training.steps=150 --data "$1/folds/prepared" \
        --out "$1/folds/cv" --folds all
    pixelnet-tf predict --model "$1/folds/cv" --data "$1/folds/prepared" --split test \
        --out "$1/folds/predictions"
    pixelnet-tf evaluate --predictions "$1/folds/predictions" --references "$1/study" \
        --out "$1/folds/scores"
    pixelnet-tf pack "$1/folds/cv" "$1/folds/model.zip"
    pixelnet-tf check "$1/folds/cv"' cross-validation "$out/main-job"
# Every layout and form of files: planned, and prepared without an edit, to the same slices.
check layouts python scripts/check_studies.py --phantom
data=${PIXELNET_SHARED:-../shared}/data
if [[ -d $data ]]; then
    check real-studies python scripts/check_studies.py "$data"/{lgg,brats_layout,msd_crops,isles2022}
    check dicom python scripts/check_dicom.py "$data/lgg"
fi
check memory python scripts/check_memory.py "$out/main-job/job/prepared" --config phantom --steps 500
check compiled python scripts/export_hlo.py "$out/hlo" --config phantom --size 96 96 --check
check export bash -c 'rm -rf "$2" && pixelnet-tf export --model "$1" --out "$2"' \
    export "$out/main-job/job/run" "$out/models"
# MONAI Label's own client, without what the package asks for beside it; it needs Python below 3.13.
client="$out/monailabel"
if python -c 'import sys; sys.exit(sys.version_info >= (3, 13))'; then
    check viewer-bridge bash -c 'set -e
        python -m venv "$3" && "$3/bin/pip" -q install --no-deps monailabel==0.8.5 requests urllib3 \
            idna certifi charset-normalizer
        python scripts/check_viewer_bridge.py "$1" "$2" "$3/bin/python"' viewer-bridge \
        "$out/models" "$out/main-job/study/phantom_001" "$client"
fi
check load python scripts/load_test.py "$out/models"
check attack python scripts/attack_server.py "$out/models"
exit "$failed"
