# Step 8: the log-based metric of outcomes. Sourced by deploy.sh; see deploy/common.sh.

ensure_metric() {
    local present metric="$NAME-outcomes" wanted change=create
    wanted=$(sed -n "s/FUNCTION/$NAME/; s/^  \"filter\": \"\(.*\)\",$/\1/p" deploy/outcomes_metric.json)
    present=$(look logging metrics describe "$metric" --format='value(filter)')
    [ "$present" != "$wanted" ] || return 0
    [ -z "$present" ] || change=update
    run sed "s/FUNCTION/$NAME/" deploy/outcomes_metric.json '|' \
        gcloud logging metrics "$change" "$metric" --config-from-file=- "${IN_PROJECT[@]}" --quiet --format=none
}
