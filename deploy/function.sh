# Step 6: the function. Sourced by deploy.sh; see deploy/common.sh.

# gcloud would upload, build and roll out again each time. A label holds a digest of what was deployed.
deploy_function() {
    step 6 "the function" "See the build's log: https://console.cloud.google.com/cloud-build/builds?project=$PROJECT ."
    local command digest deployed
    function_command
    digest=$(digest "$(quoted "${command[@]}")")
    deployed=$(look functions list --v2 "--regions=$REGION" \
        --format="value[separator=' '](name.basename(),state,labels.deployed,stateMessages.len())")
    if [ -z "$FORCE" ] && has "$deployed" "$NAME ACTIVE $digest 0" && is_public; then
        say "The function has not changed."
    else
        retry 180 cloud "${command[@]}" "--update-labels=deployed=$digest"
    fi
    find_url
}

function_command() {
    local environment secrets=--clear-secrets
    environment="^;^GOOGLE_CLOUD_PROJECT=$PROJECT;FUNCTION_USE_ASGI=true;FIRESTORE_DATABASE=$DATABASE"
    environment+=";EVENTS_COLLECTION=$COLLECTION;SIGNATURE_LEEWAY_SECONDS=$LEEWAY;LOG_LEVEL=$LOG_LEVEL"
    environment+=";LOG_EXECUTION_ID=false${RETENTION_DAYS:+;RETENTION_DAYS=$RETENTION_DAYS}"
    environment+="${DEVICES:+;DEVICES_COLLECTION=$DEVICES}${ORGANIZATION_ID:+;DT_ORGANIZATION_ID=$ORGANIZATION_ID}"
    [ -z "$SECRET" ] || secrets=--set-secrets=DT_SIGNATURE_SECRET=$SECRET:$VERSION
    command=(functions deploy "$NAME" --gen2 "--region=$REGION" --source=. "--runtime=$RUNTIME"
        --entry-point=dataconnector_endpoint --trigger-http --allow-unauthenticated "--service-account=$EMAIL"
        "--set-env-vars=$environment" "$secrets" "--concurrency=$CONCURRENCY" "--cpu=$CPU" "--memory=$MEMORY"
        "--timeout=$TIMEOUT" "--min-instances=$MIN_INSTANCES" "--max-instances=$MAX_INSTANCES" --ingress-settings=all
        --serve-all-traffic-latest-revision --clear-build-env-vars --clear-vpc-connector --clear-labels --format=none)
}

# With --dry-run and without a function, URL_OPTION holds a command for the shell in place of the URL.
find_url() {
    local describe=(functions describe "$NAME" --gen2 "--region=$REGION" "--format=value(serviceConfig.uri)")
    URL=$(look "${describe[@]}")
    URL_OPTION=--url=$URL
    [ -n "$URL" ] || URL_OPTION="--url=\$($(quoted gcloud "${describe[@]}" "${IN_PROJECT[@]}"))"
}

# An interrupted deployment may lack its last part, the public access.
is_public() {
    local invokers
    invokers=$(look run services get-iam-policy "$NAME" "--region=$REGION" --flatten='bindings[].members' \
        --format='value[separator=" "](bindings.members,bindings.role)') && has "$invokers" "allUsers roles/run.invoker"
}

digest() {
    {
        find main.py receiver requirements.txt -type f ! -name '*.pyc' | LC_ALL=C sort | xargs openssl dgst -sha256 -r
        printf '%s' "$1"
    } | openssl dgst -sha256 -r | cut -c 1-40
}
