# Step 7: a signed delivery. Sourced by deploy.sh; see deploy/common.sh.

flags+=" wait-for-event"

smoke_test() {
    step 7 "a signed delivery" "See the function's log: gcloud functions logs read $NAME --region=$REGION ."
    local options=() credentials=("$PROJECT")
    local documents=${CLOUDSDK_API_ENDPOINT_OVERRIDES_FIRESTORE:-https://firestore.googleapis.com/}v1
    documents+=/projects/$PROJECT/databases/$DATABASE/documents/$COLLECTION
    if [ -n "$SECRET" ]; then credentials+=("$SECRET" "$VERSION"); else options+=(--no-secret); fi
    run bash deploy/credentials.sh "${credentials[@]}" '|' "$PYTHON" deploy/smoke_test.py "--documents=$documents" \
        "--patience=$PATIENCE" ${options[@]+"${options[@]}"} "$URL_OPTION"
}
