#!/usr/bin/env bash
# Trains on two nodes of eight GPUs by Slurm: sbatch examples/launch/slurm.sh
#
# JAX takes one GPU a task, the one whose number is the task's on its node: as many tasks
# as GPUs, all of which every task can see (so no --gpus-per-task).
#
# Checked for syntax, not run on a cluster.
#SBATCH --job-name=tokret
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=tokret-%j.log
set -uo pipefail

trap : TERM # the tasks get it too: they save, and end

source "$HOME/tokret/bin/activate"
# A folder of a file system that all nodes have; or s3://BUCKET/runs/r101.
srun tokret train --config=gldv2_r101 --workdir=/shared/runs/r101 \
  --config.run.data_dir=/shared/data --config.data.resize=512 \
  --config.init.trunk=/shared/imagenet_resnet101 --config.run.threads=12
status=$?

# Status 75: stopped and saved before the time limit, or the storage failed for long. A job
# that was cancelled does not run any more; one that was pre-empted is requeued by Slurm.
state=$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)
if [[ $status -eq 75 && $state == RUNNING ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
