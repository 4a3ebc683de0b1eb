#!/usr/bin/env bash
# Trains on Spot TPUs until the run is finished: a slice that was pre-empted is requested
# again, and the run resumes from its bucket. Runs on any computer with gcloud, in a clone:
#
#     python -m pip wheel --no-deps --wheel-dir=dist .
#     bash examples/launch/tpu_vm.sh
#
# docs/pods.md explains each command. Checked for syntax, not run on a cloud.
set -euo pipefail

ZONE=us-west4-a
BUCKET=my-bucket # in the same region: us-west4
ACCOUNT=tokret@my-project.iam.gserviceaccount.com

request_state() {
  gcloud compute tpus queued-resources describe tokret --zone="$ZONE" \
    --format='value(state.state)' 2>/dev/null || echo NONE
}

on() { # workers, command
  gcloud compute tpus tpu-vm ssh tokret --zone="$ZONE" --worker="$1" --command="$2"
}

service_state() {
  on 0 'systemctl show tokret --property=SubState --value' || echo unreachable
}

request() {
  gcloud compute tpus queued-resources create tokret --node-id=tokret --zone="$ZONE" \
    --accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite \
    --service-account="$ACCOUNT" --spot
}

remove() {
  gcloud compute tpus queued-resources delete tokret --zone="$ZONE" --force --quiet
}

start() {
  gcloud compute tpus tpu-vm scp dist/tokret-*.whl examples/launch/setup.sh \
    examples/launch/service.sh tokret: --zone="$ZONE" --worker=all &&
    on all 'bash setup.sh' &&
    on all "bash service.sh ~/tokret/bin/tokret train \
      --config=gldv2_r101 --workdir=gs://$BUCKET/runs/r101 \
      --config.run.data_dir=gs://$BUCKET/data --config.data.resize=512 \
      --config.shuffle.order=windows --config.shuffle.window_gib=8 --config.run.cache_gib=32 \
      --config.run.compilation_cache=gs://$BUCKET/compiled --config.run.threads=100 \
      --config.init.trunk=gs://$BUCKET/imagenet_resnet101"
}

while true; do
  case $(request_state) in
    NONE) request || true ;; # the next round tries again
    SUSPENDED | FAILED) remove || true ;; # it was pre-empted, or refused
    ACTIVE)
      case $(service_state) in
        dead) start || true ;;
        exited) break ;;
        failed)
          echo "the run ended with an error; the slice still exists, and costs:" >&2
          on 0 'journalctl --unit=tokret --lines=20 --no-pager' >&2
          exit 1
          ;;
      esac
      ;;
  esac
  sleep 60
done
remove
echo "finished: gs://$BUCKET/runs/r101"
