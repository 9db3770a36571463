#!/usr/bin/env bash
# A search under SLURM: one job that holds its nodes, Ray on all of them, the search on the first one, all gone with the job.
# Edit: the #SBATCH lines, VENV and RUNS below (a folder that all nodes share, or s3://BUCKET/runs); PRICE, USD per node and hour as your site accounts it.
# Per hour: 4 nodes x PRICE, 4.80 USD by the 1.20 below, until the search ends or --time is over, busy or not: SLURM has no autoscaler.
# Start, in the repository's root: python3.11 -m venv VENV && VENV/bin/pip install -c constraints.txt . once; VENV/bin/ray get-auth-token --generate > /dev/null
# Search: sbatch clusters/slurm.sh, which runs: python -m faar_ray.tune search_spaces/rho.yaml --address auto storage.path=RUNS resources.workers=4 resources.gpus_per_worker=1
#   more of its arguments behind the file: sbatch clusters/slurm.sh budget.trials=40
# Watch: tail -f faar_ray-JOBID.out; the dashboard: ssh -L 8265:localhost:PORT -J LOGIN NODE as that file's first line has them (it asks for what ray get-auth-token prints).
# MLflow: MLFLOW=http://SERVER:5000 sbatch ... for a server of yours (mlflow server --backend-store-uri postgresql://DB/mlflow); without it RUNS/mlflow.db: ssh -L 5000:localhost:5000 LOGIN mlflow ui --backend-store-uri sqlite:///RUNS/mlflow.db
# End: scancel JOBID; the search is told to end 120 s before the time is over, and its last words name the command that goes on.
# Go on: sbatch clusters/slurm.sh --resume
#SBATCH --job-name=faar_ray
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=1
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --output=faar_ray-%j.out
set -euo pipefail

VENV=${VENV:-$HOME/faar_ray-venv}
RUNS=${RUNS:-$HOME/faar_ray-runs}
MLFLOW=${MLFLOW:-sqlite:///$RUNS/mlflow.db}
price=${PRICE:-1.20}

export PATH=$VENV/bin:$PATH RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
umask 077
[ -s "$HOME/.ray/auth_token" ] || { echo "no token: run ray get-auth-token --generate once" >&2; exit 2; }
case $RUNS in
  s3://*) [[ $MLFLOW != sqlite:///s3://* ]] || { echo "RUNS is a bucket: MLFLOW must be a server" >&2; exit 2; } ;;
  *) mkdir -p "$RUNS" ;;
esac

# Jobs may share a node, with those of others too: ports and a session folder of the job's own.
port=$((20000 + SLURM_JOB_ID % 3000 * 4))
session=/tmp/faar_ray-$SLURM_JOB_ID
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" hostname -I | awk '{ print $1 }')
export RAY_ADDRESS=$address:$port  # what `--address auto` finds
offer=(
  --block  # the step holds its Ray: it ends with the step, and the step with the job
  --temp-dir="$session" --dashboard-agent-listen-port=$((port + 3))
  --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}"
  --labels="usd-per-hour=$price,ray.io/market-type=on-demand"
)

steps=()
search=
status=1
# Ray's logs of a job that failed stay on its nodes, in $session
trap 'kill "${steps[@]}" 2> /dev/null || true; wait
  ((status)) || srun --overlap --nodes="${#nodes[@]}" --ntasks="${#nodes[@]}" rm -rf "$session"' EXIT
trap 'if [ -n "$search" ]; then kill -TERM "$search" && told=1; else exit 143; fi' TERM

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" ray start --head --node-ip-address="$address" --port="$port" \
  --dashboard-host=127.0.0.1 --dashboard-port=$((port + 1)) --ray-client-server-port=$((port + 2)) "${offer[@]}" &
steps+=($!)
for ((try = 1; ; try++)); do
  if ray status > /dev/null 2>&1; then break; fi
  if ((try == 60)); then echo "Ray did not start on $head" >&2; exit 1; fi
  sleep 2
done
if ((${#nodes[@]} > 1)); then
  others=$((${#nodes[@]} - 1))
  srun --overlap --nodes="$others" --ntasks="$others" --exclude="$head" ray start --address="$RAY_ADDRESS" "${offer[@]}" &
  steps+=($!)
fi
echo "Ray on ${nodes[*]}; dashboard on port $((port + 1)) of $head"

python -m faar_ray.tune search_spaces/rho.yaml --address auto storage.path="$RUNS" tracking.uri="$MLFLOW" \
  resources.workers="${#nodes[@]}" resources.gpus_per_worker=1 "$@" &
search=$!
told=1
while ((told)); do  # a TERM ends `wait`, but not the search
  told=0 status=0
  wait "$search" || status=$?
done
exit "$status"
