#!/usr/bin/env bash
# Trains on a v5e-16 slice of Google Kubernetes Engine, by xpk 1.16 (pip install xpk), in a
# clone. The cluster is kept for further jobs; the last lines remove it.
#
#     python -m pip wheel --no-deps --wheel-dir=dist .
#     bash examples/launch/xpk.sh
#
# docs/pods.md explains it. Checked for syntax, not run on a cloud.
set -euo pipefail

PROJECT=my-project
ZONE=us-west4-a
BUCKET=my-bucket # in the same region: us-west4
CLUSTER=tokret
IMAGE=us-west4-docker.pkg.dev/$PROJECT/tokret/tokret:latest

docker build --tag="$IMAGE" --file=examples/launch/Dockerfile .
docker push "$IMAGE"

xpk cluster create --project="$PROJECT" --zone="$ZONE" --cluster="$CLUSTER" \
  --tpu-type=v5litepod-16 --num-slices=1 --spot

# Status 75: stopped and saved, or the storage failed for long. Both resume.
xpk workload create --project="$PROJECT" --zone="$ZONE" --cluster="$CLUSTER" \
  --workload=tokret-r101 --tpu-type=v5litepod-16 --num-slices=1 --docker-image="$IMAGE" \
  --max-restarts=100 --restart-on-exit-codes=75 --termination-grace-period-seconds=300 \
  --command="tokret train --config=gldv2_r101 --workdir=gs://$BUCKET/runs/r101 \
    --config.run.data_dir=gs://$BUCKET/data --config.data.resize=512 \
    --config.shuffle.order=windows --config.shuffle.window_gib=8 --config.run.cache_gib=32 \
    --config.run.compilation_cache=gs://$BUCKET/compiled --config.run.threads=100 \
    --config.init.trunk=gs://$BUCKET/imagenet_resnet101"

xpk workload list --project="$PROJECT" --zone="$ZONE" --cluster="$CLUSTER" \
  --wait-for-job-completion=tokret-r101

# xpk workload delete --project="$PROJECT" --zone="$ZONE" --cluster="$CLUSTER" --workload=tokret-r101
# xpk cluster delete --project="$PROJECT" --zone="$ZONE" --cluster="$CLUSTER"
