#!/usr/bin/env bash
# The stages of a model on a GPU: seconds of each command, and the speed of training, decoding and serving.
#
#     benchmarks/gpu.sh OUT            about ten minutes on one GPU; needs no data and no network
#     benchmarks/gpu.sh OUT cpu small  the same commands with small sizes on a CPU, to try the script
#
# The data are random, of the size of Amazon Beauty: 22,363 users, 12,101 items, embeddings of 448 dimensions.
# OUT gets a JSON file for each benchmark, and seconds.txt.
set -euo pipefail
out=${1:?usage: benchmarks/gpu.sh OUT [DEVICE [small]]}
device=${2:-cuda}
if [ "${3:-}" = small ]; then
    users=60 items=50 minutes=0.05 training=(--widths 32 --batches 8 --steps 2 --architectures hierarchical)
    decoding=(--items 300 --beams 5 --batch 4 --seconds 0.1) serving=(--items 300 --seconds 0.5 --connections 2)
else
    users=22363 items=12101 minutes=1 training=(--widths 0 --batches 128 1024 --steps 30)
    decoding=(--items 12101 1000000 --beams 50 --batch 1024 --seconds 2) serving=(--seconds 4 --connections 1 64)
fi
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
: > "$out/seconds.txt"

timed() {  # timed NAME COMMAND...
    local name=$1 start
    shift
    start=$(date +%s.%N)
    "$@" > "$out/$name.json"
    awk -v name="$name" -v start="$start" -v end="$(date +%s.%N)" 'BEGIN { printf "%s %.1f\n", name, end - start }' |
        tee -a "$out/seconds.txt"
}

python - "$out" "$users" "$items" <<'PY'
import sys

import numpy as np
import polars as pl

out, users, items = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(0)
first = rng.permutation(items)  # every item at least once
item = np.concatenate([first, (items * rng.random(9 * users) ** 2).astype(np.int64)])
user = np.arange(len(item)) % users
log = pl.DataFrame({"user_id": user, "item_id": item, "timestamp": rng.integers(10**9, 2 * 10**9, len(item))})
log.write_csv(f"{out}/log.csv")
topics = rng.standard_normal((200, 448))
content = topics[rng.integers(200, size=items)] + 0.5 * rng.standard_normal((items, 448))
np.save(f"{out}/content.npy", content.astype(np.float32))
pl.DataFrame({"item_id": range(items), "title": [f"Item {i}" for i in range(items)]}).write_csv(f"{out}/items.csv")
PY

python -m pytest "$here/../tests/test_gpu.py"
recipe=$(python -c "import rqrec.experiments as e; print(e.__path__[0])")/recipe.gin
files=(--interactions "$out/log.csv" --items "$out/items.csv")
timed prepare rqrec prepare custom "${files[@]}" --out "$out/dataset" --json
timed embed rqrec embed "$out/dataset" --embeddings "$out/content.npy" --out "$out/embeddings" --json
timed fit-rqkmeans rqrec fit-rqkmeans "$out/embeddings" --device "$device" --out "$out/rqkmeans" --json
timed tokenize rqrec tokenize "$out/rqkmeans" "$out/embeddings" --dataset "$out/dataset" --device "$device" \
    --out "$out/semantic_ids" --json
# Training chooses a GPU by itself.
timed train-decoder rqrec train-decoder "$recipe" --dataset "$out/dataset" --semantic-ids "$out/semantic_ids" \
    --embeddings "$out/embeddings" --max-minutes "$minutes" --gin "train.save_dir_root='$out/codes'" --json
timed evaluate rqrec evaluate --artifact "$out/codes" --dataset "$out/dataset" --device "$device" --json
timed batch-recommend rqrec batch-recommend --artifact "$out/codes" --input "$out/log.csv" --device "$device" \
    --processes 1 --out "$out/recommendations" --json
timed training python "$here/training.py" --device "$device" --threads 1 "${training[@]}" --json
timed decoding python "$here/decoding.py" --device "$device" --threads 1 --architectures hierarchical decoder_only \
    "${decoding[@]}" --json
timed serving python "$here/serving.py" --artifact "$out/codes" --device "$device" "${serving[@]}" --json
