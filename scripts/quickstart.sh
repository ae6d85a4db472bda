#!/usr/bin/env bash
# The main job on a synthetic study, from a bare Python to a table of Dice and a picture.
#
#   bash scripts/quickstart.sh [OUT]
#
# Makes .venv, installs the project, then: phantom, and run, which plans, prepares, trains, predicts,
# evaluates and reports. The study goes to OUT/study, all else to OUT/job (default: quickstart/); what
# is there already is kept, so a second call goes on where the first one ended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
out=${1:-quickstart}
make_environment report

step() {
    printf '\n== %s\n   pixelnet-tf %s\n' "$1" "${*:2}"
    pixelnet-tf "${@:2}"
}

step "a synthetic study" phantom "$out/study" --cases 12 --seed 0
step "all of the rest" run "$out/study" "$out/job"

python - "$out" "$SECONDS" <<'PYTHON'
import csv
import pathlib
import sys

out, seconds = pathlib.Path(sys.argv[1]), int(sys.argv[2])
with open(out / "job" / "scores" / "cases.csv", newline="") as file:
    rows = [{"case": row["case"], **{key.removeprefix("Dice_"): float(value)
                                     for key, value in row.items() if key.startswith("Dice_")}}
            for row in csv.DictReader(file)]
regions = [key for key in rows[0] if key != "case"]
# The cases come first, then their mean and spread.
table = rows[:[row["case"] for row in rows].index("Mean") + 1]
print("\nDice of cases that were not trained on (ET enhancing, WT whole, TC core of the tumour)\n")
print(f"{'case':<14}" + "".join(f"{name:>8}" for name in regions))
for row in table:
    print(f"{row['case']:<14}" + "".join(f"{row[name]:>8.3f}" for name in regions))
print(f"\npicture: {out / 'job' / 'predictions' / 'overlays' / rows[0]['case']}.png")
print(f"report: {out / 'job' / 'report.html'}")
print(f"all of it: {out}/   time: {seconds // 60}:{seconds % 60:02} min")
PYTHON
