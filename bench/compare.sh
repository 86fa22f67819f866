#!/usr/bin/env bash
# Alternates moaserve's benchmark with another program's on the same model, so that
# both see the same moods of the machine. Prints JSON lines.
#
#   bench/compare.sh ROUNDS MODEL.gguf COMMAND [ARG ...]
set -euo pipefail
rounds=$1 model=$2
shift 2
for round in $(seq "$rounds"); do
	echo "# round $round"
	./moaserve bench --model "$model" --plans dense,moa-50 --depths 16,2048,7000 --steps 64 --repeat 2 --json
	./moaserve bench --model "$model" --plans dense --depths 16 --batches 1,16 --steps 64 --repeat 2 --json
	"$@"
done
