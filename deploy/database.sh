# Step 2: APIs and the Firestore database. Sourced by deploy.sh; see deploy/common.sh.

flags+=" pitr"
values+=" database location"

APIS="artifactregistry cloudbuild cloudfunctions firestore iam logging run secretmanager storage"

# In step 1, for the plan.
read_database() {
    local row
    row=$(look firestore databases describe "--database=$DATABASE" --format='csv[no-heading](type,databaseEdition,
locationId,deleteProtectionState,pointInTimeRecoveryEnablement)')
    IFS=, read -r DB_TYPE DB_EDITION DB_LOCATION DB_PROTECTION DB_PITR <<<"$row"
    [ -n "$DB_TYPE" ] || return 0
    [ "$DB_TYPE" = FIRESTORE_NATIVE ] ||
        fail "The database $DATABASE is in Datastore mode: choose another one with --database."
    [ "$DB_EDITION" != ENTERPRISE ] ||
        fail "The database $DATABASE has the Enterprise edition, which has other indexes and prices: choose another one \
with --database."
    [ "$NOW_DATABASE" = "$DATABASE" ] || is_near ||
        fail "The database $DATABASE is in $DB_LOCATION, which cannot be changed: choose another one with --database, or \
set --location $DB_LOCATION to use it with a function in $REGION."
}

is_near() {
    case $DB_LOCATION in
    "${LOCATION:-$REGION}") return 0 ;;
    eur3) [ -z "$LOCATION" ] && [[ $REGION = europe-* ]] ;;
    nam*) [ -z "$LOCATION" ] && [[ $REGION = us-* || $REGION = northamerica-* ]] ;;
    *) return 1 ;;
    esac
}

plan_database() {
    local protection=${DB_PROTECTION#DELETE_PROTECTION_} pitr=off where
    where=$(difference "$NOW_DATABASE" "$DATABASE")
    [ -n "$NOW_EXISTS" ] || where=$DATABASE
    case $PITR$DB_PITR in
    *POINT_IN_TIME_RECOVERY_ENABLED) pitr=on ;;
    true*) pitr="off → on" ;;
    esac
    if [ -z "$DB_TYPE" ]; then
        plan Firestore "$where, new, native mode, standard edition, in ${LOCATION:-$REGION}, delete protection on, \
point-in-time recovery ${PITR:+on}${PITR:-off}"
    else
        case $protection in ENABLED) protection=on ;; *) protection="off → on" ;; esac
        plan Firestore "$where, native mode, standard edition, in $DB_LOCATION, delete protection $protection, \
point-in-time recovery $pitr"
    fi
}

ensure_apis() {
    step 2 "APIs and the Firestore database" "This step needs the role Owner or Editor of the project, and billing."
    local enabled api missing=()
    enabled=$(look services list --enabled --format='value(config.name)')
    for api in $APIS; do
        has "$enabled" "$api.googleapis.com" || missing+=("$api.googleapis.com")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    retry 180 cloud services enable "${missing[@]}" --format=none
    [ -n "$DRY_RUN" ] || APIS_ENABLED=true
}

ensure_database() {
    local changes=()
    [ -z "$APIS_ENABLED" ] || read_database # its API was not enabled when the plan was made
    if [ -z "$DB_TYPE" ]; then
        retry 180 cloud firestore databases create "--database=$DATABASE" "--location=${LOCATION:-$REGION}" \
            --type=firestore-native --delete-protection ${PITR:+--enable-pitr} --format=none
        return
    fi
    [ "$DB_PROTECTION" = DELETE_PROTECTION_ENABLED ] || changes+=(--delete-protection)
    [ -z "$PITR" ] || [ "$DB_PITR" = POINT_IN_TIME_RECOVERY_ENABLED ] || changes+=(--enable-pitr)
    [ ${#changes[@]} -eq 0 ] ||
        retry 180 cloud firestore databases update "--database=$DATABASE" "${changes[@]}" --format=none
}
