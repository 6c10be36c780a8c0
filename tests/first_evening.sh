#!/usr/bin/env bash
# A first evening with README.md: its lines under "Install", the first music of a packaged model and
# its lines under "Your own music" are run literally, on twelve MIDI files, then every command that
# was printed after "next:". Only training is cut short: each command that trains gets STEPS.
#
#   tests/first_evening.sh editable    installs the clone, as README does
#   tests/first_evening.sh wheel       installs a wheel in an environment elsewhere
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
how=${1:-editable}
case $how in editable | wheel) ;; *) echo "usage: $0 editable|wheel" >&2; exit 2 ;; esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
STEPS="--train_steps=200"
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1 JAX_COMPILATION_CACHE_DIR="$work/cache"

# Print the first fenced block below a heading of README.md.
block() {
  awk -v heading="## $1" '
    $0 == heading { on = 1; next }
    /^## / { on = 0 }
    on && /^```/ { if (inside) exit; inside = 1; next }
    inside' "$root/README.md" | grep . || { echo "README.md has no block '$1'" >&2; exit 1; }
}

# Show a line, run it in this shell, and keep what it prints.
say_and_run() {
  local line=$1
  case $line in *" train "* | *".train "*) line="$line $STEPS" ;; esac
  echo "\$ $line"
  eval "$line" > >(tee -a "$work/printed") 2>&1
}

git clone --quiet "$root" "$work/clone"
if [ "$how" = editable ]; then
  cd "$work/clone"
  while IFS= read -r line; do eval "$line"; done < <(block Install)
else
  mkdir "$work/elsewhere"
  cd "$work/elsewhere"
  while IFS= read -r line; do
    case $line in
      "pip install -e"*)
        build=$(grep -o 'pip wheel [^`]*' "$root/README.md")
        (cd "$work/clone" && eval "$build")
        wheel=$(ls "$work"/clone/dist/*.whl)
        pip install "$wheel[demo]"
        rm -rf "$work/clone"
        ;;
      *) eval "$line" ;;
    esac
  done < <(block Install)
fi
installed=$SECONDS
echo "installed in $installed s"

# A folder with a package `experiments` of its own, which must not be taken for ours.
mkdir -p "$work/an evening/experiments"
cd "$work/an evening"
echo "raise SystemExit('the wrong package')" > experiments/__init__.py
python -P - <<'PYTHON'
import pathlib

import numpy as np

from data_pipeline.render.files import write_midi

generator = np.random.default_rng(0)
pathlib.Path("midi_folder").mkdir()
for number in range(12):
    row = np.zeros(40 * 16, np.uint8)
    row[::2] = 40 + np.cumsum(generator.integers(-2, 3, len(row) // 2)).clip(-15, 15)
    write_midi(f"midi_folder/song {number}.mid", row, "mel_2bar")
PYTHON

say_and_run "$(grep '^musicvae generate --model' "$root/README.md")"
ls first/*.wav first/*.png > /dev/null

while IFS= read -r line; do say_and_run "$line"; done < <(block "Your own music")
next=$(awk '/next:$/ { on = 1; next } on && /^  / { print substr($0, 3); next } { on = 0 }' \
  "$work/printed")
[ -n "$next" ] || { echo "no command printed what comes next" >&2; exit 1; }
while IFS= read -r line; do say_and_run "$line"; done <<< "$next"

for number in 1 2 3 4 5 6 7 8; do
  for end in mid wav; do test -s "music/sample_$number.$end"; done
done
test -s runs/mel/evaluation_test.json
echo "$how: a first evening in $SECONDS s, $installed s of them to install"
