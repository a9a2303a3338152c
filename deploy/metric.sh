# Step 8: the log-based metric of outcomes. Sourced by deploy.sh; see deploy/common.sh.

ensure_metric() {
    local metrics metric="$NAME-outcomes"
    metrics=$(look logging metrics list --format='value(name)')
    has "$metrics" "$metric" ||
        run sed "s/FUNCTION/$NAME/" deploy/outcomes_metric.json '|' \
            gcloud logging metrics create "$metric" --config-from-file=- "${IN_PROJECT[@]}" --quiet
}
