# Step 6: the function. Sourced by deploy.sh; see deploy/common.sh.

flags+=" force"
values+=" runtime concurrency cpu memory timeout min-instances max-instances"

# gcloud would upload, build and roll out again each time. A variable holds a digest of the source: unlike a label of the
# function it belongs to the revision, and what serves after a failed deployment has the digest of what serves. Another
# one, DEPLOYED_WITH, holds the settings that the function shows of its last deployment only. A label holds a digest of
# further flags.
ensure_function() {
    step 6 "the function" "See the build's log: https://console.cloud.google.com/cloud-build/builds?project=$PROJECT ."
    local source flags_digest command
    source=$(source_digest)
    flags_digest=$(printf '%s\n' ${GCLOUD_FLAGS[@]+"${GCLOUD_FLAGS[@]}"} | short_digest)
    FIXED="GOOGLE_CLOUD_PROJECT=$PROJECT;FUNCTION_USE_ASGI=true;LOG_EXECUTION_ID=false"
    DEPLOYED=''
    if [ -z "$FORCE" ] && is_deployed; then
        say "The function has not changed."
    else
        function_command
        retry 300 cloud "${command[@]}"
        DEPLOYED=true
    fi
    ensure_public
    find_url
}

is_deployed() {
    local setting now
    [ "$NOW_STATE" = "ACTIVE" ] && [ "$NOW_SOURCE" = "$source" ] && [ "$NOW_TRAFFIC" = newest ] || return 1
    [ "$NOW_FIXED" = "$FIXED" ] && [ "$NOW_ENTRY_POINT" = dataconnector_endpoint ] || return 1
    [ "$NOW_VERSION" = "$VERSION" ] && [ -z "$NOW_PLAIN_SECRET" ] || return 1
    [ ${#GCLOUD_FLAGS[@]} -eq 0 ] || [ "$NOW_FLAGS" = "$flags_digest" ] || return 1
    [ -z "$BUILD_EMAIL" ] || [ "$NOW_BUILD_SERVICE_ACCOUNT" = "$BUILD_EMAIL" ] || return 1
    for setting in $SETTINGS; do
        now=NOW_$setting
        [ "${!now}" = "${!setting}" ] || return 1
    done
}

# Variables, labels, ingress and connectors that are not ours stay as they are.
function_command() {
    command=(functions deploy "$NAME" --gen2 "--region=$REGION" --source=. "--runtime=$RUNTIME"
        --entry-point=dataconnector_endpoint --trigger-http "--service-account=$EMAIL"
        "--concurrency=$CONCURRENCY" "--cpu=$CPU" "--memory=$MEMORY" "--timeout=${TIMEOUT}s"
        "--min-instances=$MIN_INSTANCES" "--max-instances=$MAX_INSTANCES" --serve-all-traffic-latest-revision)
    [ ${#GCLOUD_FLAGS[@]} -eq 0 ] || command+=("--update-labels=flags=$flags_digest")
    [ -z "$BUILD_EMAIL" ] ||
        command+=("--build-service-account=projects/$PROJECT/serviceAccounts/$BUILD_EMAIL")
    add_environment
    command+=(--format=none ${GCLOUD_FLAGS[@]+"${GCLOUD_FLAGS[@]}"})
}

add_environment() {
    local environment removed=''
    environment="^;^$FIXED;SOURCE_DIGEST=$source;FIRESTORE_DATABASE=$DATABASE;EVENTS_COLLECTION=$COLLECTION"
    environment+=";DEPLOYED_WITH=$RUNTIME,${BUILD_EMAIL:-$NOW_BUILD_SERVICE_ACCOUNT},$MIN_INSTANCES,$MAX_INSTANCES"
    environment+=";SIGNATURE_LEEWAY_SECONDS=$LEEWAY;LOG_LEVEL=$LOG_LEVEL"
    add_variable DEVICES_COLLECTION "$DEVICES"
    add_variable RETENTION_DAYS "$RETENTION_DAYS"
    add_variable DT_ORGANIZATION_ID "$ORGANIZATION_ID"
    add_variable PREVIOUS_REVISION "$NOW_REVISION" # for --rollback
    add_variable DT_SIGNATURE_SECRET ''
    command+=("--update-env-vars=$environment")
    [ -z "$removed" ] || command+=("--remove-env-vars=${removed#,}")
    if [ -n "$SECRET" ]; then
        command+=("--update-secrets=DT_SIGNATURE_SECRET=$SECRET:$VERSION")
    elif [ -n "$NOW_SECRET$NOW_SECRET_VARIABLE" ]; then
        command+=(--remove-secrets=DT_SIGNATURE_SECRET)
    fi
}

# add_variable VARIABLE THEN. gcloud adds to the variables of the function's last deployment, which may have been rolled
# back and have some that the revision that serves has not.
add_variable() {
    if [ -n "$2" ]; then
        environment+=";$1=$2"
    elif has_word "$NOW_VARIABLES" "$1"; then
        removed+=",$1"
    fi
}

# DT cannot sign in at Google, so that everyone may call the function. Where an organization forbids to give a role to
# everyone, Google recommends to switch off the check of the role.
ensure_public() {
    local invokers
    [ "$NOW_INVOKER_CHECK" != disabled ] || return 0
    invokers=$(look run services get-iam-policy "$NAME" "--region=$REGION" --flatten='bindings[].members' \
        --format='value[separator=" "](bindings.members,bindings.role)')
    ! has "$invokers" "allUsers roles/run.invoker" || return 0
    if ! retry 180 cloud run services add-iam-policy-binding "$NAME" "--region=$REGION" --member=allUsers \
        --role=roles/run.invoker --format=none; then
        grep -qE 'permitted customer|allowedPolicyMemberDomains|FAILED_PRECONDITION' "$SCRATCH/retry" || return 1
        say "An organization policy forbids roles for everyone. The check of the role is disabled instead."
        retry 180 cloud run services update "$NAME" "--region=$REGION" --no-invoker-iam-check --format=none ||
            fail "DT cannot call a function that is not public: ask an administrator of the organization to allow \
--no-invoker-iam-check (constraints/run.managed.requireInvokerIam) or allUsers in this project."
    fi
}

# With --dry-run and without a function, URL_OPTION holds a command for the shell in place of the URL.
find_url() {
    local describe=(functions describe "$NAME" --gen2 "--region=$REGION" "--format=value(serviceConfig.uri)")
    URL=$NOW_URL
    [ -n "$URL" ] || URL=$(look "${describe[@]}")
    URL_OPTION=--url=$URL
    [ -n "$URL" ] || URL_OPTION="--url=\$($(quoted gcloud "${describe[@]}" "${IN_PROJECT[@]}"))"
}

source_digest() {
    find main.py receiver requirements.txt -type f ! -name '*.pyc' | LC_ALL=C sort | xargs openssl dgst -sha256 -r |
        short_digest
}

short_digest() {
    openssl dgst -sha256 -r | cut -c 1-40
}
