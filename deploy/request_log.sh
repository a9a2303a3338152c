# Step 8: Cloud Run's own request log. Sourced by deploy.sh; see deploy/common.sh.

flags+=" no-request-log request-log"

# Cloud Run writes a line for each request, some 1.1 kB, beside the line of the function. Failures stay in it.
ensure_request_log() {
    local exclusions exclusion="$NAME-requests" filter
    [ -n "$NO_REQUEST_LOG$REQUEST_LOG" ] || return 0
    exclusions=$(look logging sinks describe _Default --format='value[delimiter="
"](exclusions[].name)')
    if [ -n "$NO_REQUEST_LOG" ] && ! has "$exclusions" "$exclusion"; then
        filter="resource.type=cloud_run_revision AND resource.labels.service_name=$NAME AND \
resource.labels.location=$REGION AND log_id(\"run.googleapis.com/requests\") AND httpRequest.status<400"
        cloud logging sinks update _Default "--add-exclusion=^;^name=$exclusion;filter=$filter" --format=none
    elif [ -n "$REQUEST_LOG" ] && has "$exclusions" "$exclusion"; then
        cloud logging sinks update _Default "--remove-exclusions=$exclusion" --format=none
    fi
}
