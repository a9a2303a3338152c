# Step 7: a signed delivery. Sourced by deploy.sh; see deploy/common.sh.

values+=" patience"
WRONG_ANSWER=3 # exit status of deploy/smoke_test.py if the endpoint is at fault; others say nothing about the endpoint

smoke_test() {
    step 7 "a signed delivery" "See the function's log: gcloud functions logs read $NAME --region=$REGION ."
    local status=0 credentials=("$PROJECT") options=("--patience=${PATIENCE:-120}")
    if [ -n "$SECRET" ]; then credentials+=("$SECRET" "$VERSION"); else options+=(--no-secret); fi
    run bash deploy/credentials.sh "${credentials[@]}" '|' "$PYTHON" deploy/smoke_test.py "--documents=$(documents)" \
        "${options[@]}" "$URL_OPTION" || status=$?
    case $status in
    0) return ;;
    "$WRONG_ANSWER") undo_deployment ;;
    *) ADVICE="What is deployed stays, because this machine could not test it: check its connection to $URL and to \
Firestore (names, proxy, certificates), and that your account may delete documents (roles/datastore.user). $ADVICE" ;;
    esac
    return 1
}

# The new revision answers deliveries wrongly. One that this run has not deployed stays: perhaps only Firestore is down.
undo_deployment() {
    local option="--rollback${ROLLBACK:+ --force}"
    if [ -z "$DEPLOYED" ]; then
        say "Deliveries still go to $NOW_REVISION.${NOW_PREVIOUS:+ If it is at fault: ./deploy.sh $option sends them back to \
$NOW_PREVIOUS.}"
        return
    fi
    [ -n "$NOW_REVISION" ] || return 0
    say "All deliveries go back to the revision before, $NOW_REVISION."
    cloud run services update-traffic "$NAME" "--region=$REGION" "--to-revisions=$NOW_REVISION=100" --format=none
}

# Prints the URL of the collection in Firestore's REST API.
documents() {
    printf %s "${CLOUDSDK_API_ENDPOINT_OVERRIDES_FIRESTORE:-https://firestore.googleapis.com/}v1/projects/$PROJECT" \
        "/databases/$DATABASE/documents/$COLLECTION"
}
