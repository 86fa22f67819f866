#!/bin/sh
# The figures of docs/benchmarks.md for one NVIDIA GPU, part by part: each part is a few
# minutes long and prints JSON lines.
#
#	bench/cuda.sh decode|largest|one|prefill|gap|churn [moaserve flags]
#
# MOASERVE is the binary (make build-cuda), CHURN that of bench/churn. VICUNA_PLAN is a
# plan file for synthetic:vicuna-7b, such as one that `moaserve plan import` made; without
# it that row is left out.
set -eu
part=$1
shift
m=${MOASERVE:-./moaserve}
flags=$*
bench() { "$m" bench --backend cuda --json --repeat 1 "$@" $flags; }

case $part in
decode) # the batches of other programs' rows; an imported plan's answer must stay in its bucket
	for row in "3940 30" "8000 15" "16100 8"; do
		set -- $row
		bench --model synthetic:vicuna-7b --plans "dense,mixed:50%${VICUNA_PLAN:+,$VICUNA_PLAN}" --depths "$1" --batches "$2" --steps 64 --context 16384
	done
	bench --model synthetic:llama-3-8b --plans dense,mixed:50% --depths 8000 --batches 32 --steps 64
	;;
largest) # as many as fit beside 13.5 and 16 GB of weights in 140 GB, and as many as are dense; KV_MEMORY bounds them elsewhere
	kv=${KV_MEMORY:-118GiB}
	for row in "3940 110" "8000 56" "16100 28"; do
		set -- $row
		bench --model synthetic:vicuna-7b --plans "mixed:50%" --depths "$1" --batches "$2" --steps 48 --context 16384 --kv-memory "$kv"
		bench --model synthetic:vicuna-7b --plans dense --depths "$1" --batches $(($2 / 2)) --steps 48 --context 16384 --kv-memory "$kv"
	done
	for row in "8000 218" "16100 109"; do
		set -- $row
		bench --model synthetic:llama-3-8b --plans "mixed:50%" --depths "$1" --batches "$2" --steps 48 --context 16384 --kv-memory "$kv"
		bench --model synthetic:llama-3-8b --plans dense --depths "$1" --batches $((($2 + 1) / 2)) --steps 48 --context 16384 --kv-memory "$kv"
	done
	;;
one) # one stream
	bench --model synthetic:llama-3-8b --plans dense,mixed:50% --depths 8192,32768,130900 --batches 1 --steps 64 --context 131072
	bench --model synthetic:vicuna-7b --plans dense,mixed:50% --depths 130900 --batches 1 --steps 32 --context 131072
	;;
prefill) # the time to the first token of one prompt
	bench --model synthetic:llama-3-8b --plans dense,mixed:50% --depths 8192,32768,131000 --batches 1 --steps 0 --context 131072
	;;
gap) # a long prompt beside a stream
	bench --gap --model synthetic:llama-3-8b --plans mixed:50% --depths 512 --gap-prompt 7000 --gap-tokens 2000 --kv-memory 16GiB
	;;
churn)
	"${CHURN:-./churn}" -model synthetic:tiny -backend cuda -requests 100000 -streams 96 "$@"
	;;
*)
	echo "unknown part $part" >&2
	exit 2
	;;
esac
