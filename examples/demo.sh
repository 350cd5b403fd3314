#!/usr/bin/env bash
# A cluster on this machine, the word count on it, and nothing left afterwards, also when a step fails.
set -euo pipefail
bin=$1
name=$2
here=$(cd "$(dirname "$0")" && pwd)

trap '"$bin/dec2" destroy "$name" --provider local --yes' EXIT
"$bin/dec2" up --provider local --name "$name" --count 3 --yes
"$bin/dec2" run --provider local --name "$name" "$here/wordcount.py"
