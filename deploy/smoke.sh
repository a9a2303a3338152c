# Step 7: a signed delivery. Sourced by deploy.sh; see deploy/common.sh.

values+=" patience"

smoke_test() {
    step 7 "a signed delivery" "See the function's log: gcloud functions logs read $NAME --region=$REGION ."
    local status=0 credentials=("$PROJECT") options=("--patience=${PATIENCE:-120}")
    if [ -n "$SECRET" ]; then credentials+=("$SECRET" "$VERSION"); else options+=(--no-secret); fi
    run bash deploy/credentials.sh "${credentials[@]}" '|' "$PYTHON" deploy/smoke_test.py "--documents=$(documents)" \
        "${options[@]}" "$URL_OPTION" || status=$?
    [ $status -ne 1 ] || undo_deployment
    return $status
}

# The new revision answers deliveries wrongly, and the one before it did not.
undo_deployment() {
    [ -n "$DEPLOYED" ] && [ -n "$NOW_REVISION" ] || return 0
    say "All deliveries go back to the revision before, $NOW_REVISION."
    cloud run services update-traffic "$NAME" "--region=$REGION" "--to-revisions=$NOW_REVISION=100" --format=none
}

# Prints the URL of the collection in Firestore's REST API.
documents() {
    printf %s "${CLOUDSDK_API_ENDPOINT_OVERRIDES_FIRESTORE:-https://firestore.googleapis.com/}v1/projects/$PROJECT" \
        "/databases/$DATABASE/documents/$COLLECTION"
}
