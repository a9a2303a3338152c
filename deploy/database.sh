# Step 2: APIs and the Firestore database. Sourced by deploy.sh; see deploy/common.sh.

APIS="artifactregistry cloudbuild cloudfunctions firestore iam logging run secretmanager storage"

ensure_apis() {
    step 2 "APIs and the Firestore database" "This step needs the role Owner or Editor of the project, and billing."
    local enabled api missing=()
    enabled=$(look services list --enabled --format='value(config.name)')
    for api in $APIS; do
        has "$enabled" "$api.googleapis.com" || missing+=("$api.googleapis.com")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    cloud services enable "${missing[@]}" --format=none
    APIS_ENABLED=${DRY_RUN:+''}
    [ -n "$DRY_RUN" ] || APIS_ENABLED=true
}

ensure_database() {
    local type
    type=$(look firestore databases list --format='csv[no-heading](name.basename(),type)')
    if has "$type" "$DATABASE,DATASTORE_MODE"; then
        fail "The database $DATABASE is in Datastore mode: choose another one with --database."
    fi
    has "$type" "$DATABASE,FIRESTORE_NATIVE" ||
        retry 180 cloud firestore databases create "--database=$DATABASE" "--location=$LOCATION" \
            --type=firestore-native --delete-protection --format=none
}
