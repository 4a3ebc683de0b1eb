#!/usr/bin/env bash
# On each host of a TPU slice: runs a command as the system's service "tokret", in place of
# an older one. It outlives the ssh connection, is started again when it fails, at most 20
# times an hour, and gets SIGTERM when the machine shuts down.
#
#     bash service.sh ~/tokret/bin/tokret train ...
set -euo pipefail

sudo systemctl stop tokret 2>/dev/null || true
sudo systemctl reset-failed tokret 2>/dev/null || true
sudo systemd-run --unit=tokret --uid="$(id -u)" \
  --property=Restart=on-failure --property=RestartSec=30 \
  --property=StartLimitIntervalSec=3600 --property=StartLimitBurst=20 \
  --property=RemainAfterExit=yes --property=TimeoutStopSec=300 "$@"
