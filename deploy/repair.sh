# Step 8: the scheduled repair: `python -m backfill repair` as a Cloud Run job that Cloud Scheduler starts.
# Sourced by deploy.sh; see deploy/common.sh.

values+=" repair-schedule repair-dt-project"
flags+=" dt-key-stdin"

# It creates documents, finds the markers of `forget`, and updates its checkpoint and the states of the devices.
REPAIR_ROLE=dataconnectorRepair
REPAIRS="Repairs Data Connector events" # display name of the account
REPAIR_PERMISSIONS=datastore.entities.create,datastore.entities.get,datastore.entities.list,datastore.entities.update
REPAIR_FILES="backfill command_line dtcloud receiver deploy/repair"

check_repair() {
    must REPAIR_SCHEDULE 'none|[0-9*/,-]+( [0-9A-Za-z*/,-]+){4}' "\"none\" or a schedule such as \"17 */6 * * *\" (UTC)"
    must REPAIR_DT_PROJECT '[a-z0-9_-]{1,63}' "the id of a DT project"
    [ -z "$DT_KEY_STDIN" ] || [ -z "$SECRET_STDIN" ] || refuse "--dt-key-stdin and --secret-stdin exclude each other"
    [ -n "$DT_KEY_STDIN" ] || return 0
    [ ! -t 0 ] || say "Enter key id, secret and e-mail address of the DT service account, one a line, then Ctrl-D:"
    cat >"$SCRATCH/dt-key"
    YES=true # standard input is used up, so that nobody can answer a question
}

plan_repair() {
    [ "${REPAIR_SCHEDULE:-none}" = none ] || "$PYTHON" deploy/cron_period.py "$REPAIR_SCHEDULE" >/dev/null 2>&1 ||
        refuse "--repair-schedule: \"$REPAIR_SCHEDULE\" does not start again and again"
    name_repair
    [ "${REPAIR_SCHEDULE:-none}$DT_KEY_STDIN" = none ] || check_dt_key
    [ "${REPAIR_SCHEDULE:-none}" = none ] || check_dt_project
    [ -z "$REPAIR_SCHEDULE" ] || plan Repair "$REPAIR_SCHEDULE${REPAIR_DT_PROJECT:+, of the DT project $REPAIR_DT_PROJECT}"
}

# Without a key in this run, the stored one stays.
check_dt_key() {
    local error version
    error=$("$PYTHON" deploy/dt_key.py "$DT_KEY_SOURCE" -- true 2>&1 </dev/null) && return
    version=$(key_version)
    [ -z "$DT_KEY_STDIN" ] && [ -n "$version" ] || refuse "${error%.}"
}

key_version() {
    look secrets versions list "$DT_KEY" --filter=state=ENABLED --limit=1 --format='value(name.basename())'
}

check_dt_project() {
    local project=$REPAIR_DT_PROJECT$CONNECT_DT_PROJECT
    [ -n "$project" ] ||
        project=$(look run jobs describe "$REPAIR" "--region=$REGION" --format='value(metadata.labels.dt_project)')
    [ -n "$project" ] || refuse "the repair needs the id of the DT project: set --repair-dt-project"
}

# A service account's name has at most 30 characters.
name_repair() {
    REPAIR=$NAME-repair DT_KEY=$NAME-dt-key
    REPAIR_EMAIL=$(account_email "${NAME:0:23}-repair")
    DT_KEY_SOURCE=environment
    [ -z "$DT_KEY_STDIN" ] || DT_KEY_SOURCE=$SCRATCH/dt-key
}

# Without --repair-schedule, a repair that exists stays, and is brought up to date.
ensure_repair() {
    name_repair
    local schedule=''
    if has_scheduler; then
        schedule=$(look scheduler jobs describe "$REPAIR" "--location=$REGION" --format='value(schedule)')
    fi
    REPAIR_SCHEDULE=${REPAIR_SCHEDULE:-$schedule}
    [ -n "$REPAIR_SCHEDULE" ] || return 0
    if [ "$REPAIR_SCHEDULE" = none ]; then
        remove_repair
        return
    fi
    ADVICE="The endpoint itself is ready. The repair needs the roles of the steps 2 to 6 and roles/cloudscheduler.admin. \
Its build uses the project's default build account: if that lacks a permission, grant it roles/run.builder."
    ensure_scheduler_api
    ensure_repair_account
    ensure_dt_key
    ensure_repair_job
    ensure_schedule
    ensure_repair_alerts
}

# Without its API there is no schedule to look for.
has_scheduler() {
    local enabled
    enabled=$(look services list --enabled --format='value(config.name)')
    has "$enabled" cloudscheduler.googleapis.com
}

# Where the function's alert policies are, or are wanted: for an ERROR, and for two periods without a complete run. The
# second condition must hold for a while, so that it does not fire before a new job has run.
ensure_repair_alerts() {
    local period hold
    if [ -z "$ALERT_EMAIL$ALERT_CHANNEL" ]; then
        find_group policies || return 0
        [ -n "$(policies)" ] || return 0
    fi
    [ "$ALERT_EMAIL" != $'none\n' ] || return 0
    period=$("$PYTHON" deploy/cron_period.py "$REPAIR_SCHEDULE")
    hold=$((period < 84600 ? period : 84600))
    RENDER+=(-e "s/RANGE/$((2 * period - hold))/" -e "s/HOLD/$hold/")
    ensure_policies deploy/repair/alerts/*.yaml
}

ensure_scheduler_api() {
    ! has_scheduler || return 0
    cloud services enable cloudscheduler.googleapis.com --format=none
    [ -n "$DRY_RUN" ] || APIS_ENABLED=true
}

ensure_repair_account() {
    local accounts bindings role
    accounts=$(look iam service-accounts list --format='value(email)')
    bindings=$(look projects get-iam-policy "$PROJECT" --flatten='bindings[].members' \
        --format='value[separator=" "](bindings.members,bindings.role,bindings.condition.expression)')
    create_account "$REPAIR_EMAIL" "$REPAIRS"
    role=$(look iam roles describe "$REPAIR_ROLE" --format='csv[no-heading](name.basename(),deleted)')
    case $role in
    '') cloud iam roles create $REPAIR_ROLE "--title=Data Connector event repair" \
        "--permissions=$REPAIR_PERMISSIONS" --stage=GA --format=none ;;
    "$REPAIR_ROLE,True") cloud iam roles undelete $REPAIR_ROLE --format=none ;;
    esac
    bind "$REPAIR_EMAIL" "projects/$PROJECT/roles/$REPAIR_ROLE" \
        "resource.name==\"projects/$PROJECT/databases/$DATABASE\""
}

# A secret with three lines: key id, secret, e-mail address. The job reads the newest version each time.
ensure_dt_key() {
    local present
    present=$(look secrets describe "$DT_KEY" --format='value(name.basename())')
    [ -n "$present" ] || create 180 cloud secrets create "$DT_KEY" --replication-policy=automatic --format=none
    update_dt_key
    ensure_accessor "$DT_KEY" "$REPAIR_EMAIL"
}

# The key that is stored stays without a key in this run, and in a run that names no option of the repair: that one may
# have the key of another DT account, for --connect-dt-project.
update_dt_key() {
    local versions='' access=()
    [ -z "$present" ] || versions=$(key_version)
    if [ -n "$versions" ] && [ -z "$DT_KEY_STDIN" ] && ! named repair-schedule && ! named repair-dt-project; then
        return 0
    fi
    if ! "$PYTHON" deploy/dt_key.py "$DT_KEY_SOURCE" -- true 2>"$SCRATCH/dt-key-error" </dev/null; then
        [ -n "$versions" ] || fail "$(cat "$SCRATCH/dt-key-error")"
        return 0
    fi
    [ -z "$versions" ] || access=(gcloud secrets versions access latest "--secret=$DT_KEY" "${IN_PROJECT[@]}" '|')
    run ${access[@]+"${access[@]}"} "$PYTHON" deploy/dt_key.py "$DT_KEY_SOURCE" -- gcloud secrets versions add \
        "$DT_KEY" --data-file=- "${IN_PROJECT[@]}" --quiet --format=none
}

# As for the function, a label holds a digest of what was deployed; another one, DT's project id for the next run.
ensure_repair_job() {
    local command digest deployed invokers member=serviceAccount:$REPAIR_EMAIL
    deployed=$(look run jobs describe "$REPAIR" "--region=$REGION" \
        --format='value[separator=" "](metadata.labels.deployed,metadata.labels.dt_project)')
    REPAIR_DT_PROJECT=${REPAIR_DT_PROJECT:-${deployed#* }}
    REPAIR_DT_PROJECT=${REPAIR_DT_PROJECT:-$CONNECT_DT_PROJECT}
    [ -n "$REPAIR_DT_PROJECT" ] || fail "The repair needs the id of the DT project: set --repair-dt-project."
    stage_repair
    repair_command
    digest=$(repair_digest "$(quoted "${command[@]}")")
    [ "$deployed" = "$digest $REPAIR_DT_PROJECT" ] ||
        retry 180 cloud "${command[@]}" "--labels=deployed=$digest,dt_project=$REPAIR_DT_PROJECT"
    invokers=$(look run jobs get-iam-policy "$REPAIR" "--region=$REGION" --flatten='bindings[].members' \
        --format='value[separator=" "](bindings.members,bindings.role)')
    has "$invokers" "$member roles/run.invoker" ||
        retry 180 cloud run jobs add-iam-policy-binding "$REPAIR" "--region=$REGION" "--member=$member" \
            --role=roles/run.invoker --format=none
}

stage_repair() {
    mkdir -p "$SCRATCH/repair"
    local folder
    for folder in $REPAIR_FILES; do
        [ "$folder" = deploy/repair ] || mkdir -p "$SCRATCH/repair/$folder"
    done
    # shellcheck disable=SC2086  # a list of words
    find $REPAIR_FILES -type f -name '*.py' | while read -r file; do cp "$file" "$SCRATCH/repair/$file"; done
    cp deploy/repair/Procfile deploy/repair/requirements.txt .python-version "$SCRATCH/repair/"
}

repair_command() {
    local environment
    environment="^;^GOOGLE_CLOUD_PROJECT=$PROJECT;FIRESTORE_DATABASE=$DATABASE;EVENTS_COLLECTION=$COLLECTION"
    environment+="${RETENTION_DAYS:+;RETENTION_DAYS=$RETENTION_DAYS}${DEVICES:+;DEVICES_COLLECTION=$DEVICES}"
    environment+=";DT_PROJECT=$REPAIR_DT_PROJECT;DT_ENDPOINT=${URL:-URL-OF-THE-FUNCTION}"
    command=(run jobs deploy "$REPAIR" "--region=$REGION" "--source=$SCRATCH/repair"
        "--service-account=$REPAIR_EMAIL" "--set-env-vars=$environment"
        "--set-secrets=DT_SERVICE_ACCOUNT_KEY=$DT_KEY:latest" --tasks=1 --max-retries=1 --task-timeout=24h
        --cpu=1 --memory=512Mi --format=none)
}

repair_digest() {
    {
        find "$SCRATCH/repair" -type f | LC_ALL=C sort | xargs cat | openssl dgst -sha256 -r
        printf '%s' "${1//$SCRATCH/}"
    } | openssl dgst -sha256 -r | cut -c 1-40
}

ensure_schedule() {
    local present verb=create uri=https://run.googleapis.com/v2/projects/$PROJECT/locations/$REGION/jobs/$REPAIR:run
    present=$(look scheduler jobs describe "$REPAIR" "--location=$REGION" --format='value[separator="|"](state,schedule,timeZone,httpTarget.uri,httpTarget.oauthToken.serviceAccountEmail)')
    [ "${present#*|}" != "$REPAIR_SCHEDULE|Etc/UTC|$uri|$REPAIR_EMAIL" ] || verb=''
    [ -z "$verb" ] || [ -z "$present" ] || verb=update
    [ -z "$verb" ] ||
        retry 180 cloud scheduler jobs $verb http "$REPAIR" "--location=$REGION" "--schedule=$REPAIR_SCHEDULE" \
            --time-zone=Etc/UTC "--uri=$uri" --http-method=POST "--oauth-service-account-email=$REPAIR_EMAIL" \
            --format=none
    [ "${present%%|*}" != PAUSED ] || cloud scheduler jobs resume "$REPAIR" "--location=$REGION" --format=none
}

# With --remove or --repair-schedule none; prints with --dry-run, as everything that changes something. The checkpoint
# stays in Firestore, so that a repair that is switched on again goes on where this one was.
remove_repair() {
    name_repair
    local accounts bindings roles role=projects/$PROJECT/roles/$REPAIR_ROLE
    has_scheduler || return 0
    remove_policies "repair-*"
    ! exists scheduler jobs describe "$REPAIR" "--location=$REGION" ||
        cloud scheduler jobs delete "$REPAIR" "--location=$REGION"
    ! exists run jobs describe "$REPAIR" "--region=$REGION" ||
        cloud run jobs delete "$REPAIR" "--region=$REGION"
    ! exists secrets describe "$DT_KEY" || cloud secrets delete "$DT_KEY"
    accounts=$(look iam service-accounts list --format='value[separator=" "](email,displayName)')
    bindings=$(look projects get-iam-policy "$PROJECT" --flatten='bindings[].members' \
        --format='value[separator=" "](bindings.members,bindings.role)')
    roles=$(look iam roles list --format='value(name.basename())')
    ! has "$accounts" "$REPAIR_EMAIL $REPAIRS" || remove_member "$REPAIR_EMAIL" "$REPAIRS"
    remove_role "$REPAIR_ROLE" "$REPAIR_EMAIL" # also if an interrupted run has deleted the account
}
