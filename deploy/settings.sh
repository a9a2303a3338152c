# Step 1: what is deployed, what is to be, and the plan. Sourced by deploy.sh; see deploy/common.sh.

# Variables of settings: for each, NOW_X is what is deployed, and empty where nothing is.
SETTINGS="DATABASE COLLECTION DEVICES RETENTION_DAYS LEEWAY LOG_LEVEL ORGANIZATION_ID SECRET EMAIL RUNTIME CONCURRENCY \
CPU MEMORY TIMEOUT MIN_INSTANCES MAX_INSTANCES"
OPTIONAL="DEVICES RETENTION_DAYS ORGANIZATION_ID SECRET" # "none" unsets them

# Reads the settings of the revision that serves, which after a rollback or a failed start is not the newest one.
read_state() {
    local run=("--region=$REGION" --format=json) # of each command below
    read_function
    look run services describe "$NAME" "${run[@]}" >"$SCRATCH/service.json"
    assign_state "$SCRATCH/service.json"
    if [ -n "$NOW_REVISION" ] && [ "$NOW_REVISION" != "$NOW_NEWEST_REVISION" ]; then
        look run revisions describe "$NOW_REVISION" "${run[@]}" >"$SCRATCH/revision.json"
        assign_state "$SCRATCH/service.json" "$SCRATCH/revision.json"
    fi
}

# An interrupted run may have left a deployment that still goes on in Google Cloud.
read_function() {
    local limit=$((SECONDS + 900))
    look functions describe "$NAME" --gen2 "${run[@]}" >"$SCRATCH/function.json"
    while grep -q '"state": "DEPLOYING"' "$SCRATCH/function.json"; do
        [ $SECONDS -lt $limit ] || fail "Another deployment of the function does not end: try again later."
        say "Another deployment of the function is in progress. Waiting for it …"
        sleep 2
        look functions describe "$NAME" --gen2 "${run[@]}" >"$SCRATCH/function.json"
    done
}

assign_state() {
    local state line
    STATE_FILES=("$SCRATCH/function.json" "$@")
    state=$("$PYTHON" deploy/state.py "${STATE_FILES[@]}")
    while IFS= read -r line; do
        printf -v "NOW_${line%%=*}" %s "${line#*=}"
    done <<<"$state"
}

# A setting that is not named keeps what is deployed; in a first deployment it gets its default.
complete_settings() {
    local setting now
    EMAIL=$(account_email "$ACCOUNT")
    complete_secret
    for setting in $SETTINGS; do
        now=NOW_$setting
        if [ "${!setting}" = none ] && has_word "$OPTIONAL" "$setting"; then
            printf -v "$setting" %s ''
        elif [ -z "${!setting}" ] && [ -n "$NOW_EXISTS" ]; then
            printf -v "$setting" %s "${!now}"
        fi
    done
    set_defaults
    normalize
    check_settings
}

set_defaults() {
    DATABASE=${DATABASE:-(default)} COLLECTION=${COLLECTION:-events} LEEWAY=${LEEWAY:-10} LOG_LEVEL=${LOG_LEVEL:-INFO}
    EMAIL=${EMAIL:-$(account_email dataconnector-endpoint)} RUNTIME=${RUNTIME:-python313}
    CONCURRENCY=${CONCURRENCY:-80} CPU=${CPU:-1} MEMORY=${MEMORY:-512Mi} TIMEOUT=${TIMEOUT:-30}
    MIN_INSTANCES=${MIN_INSTANCES:-0} MAX_INSTANCES=${MAX_INSTANCES:-10}
}

# Without an organization, or with an option that makes one, there is a secret.
complete_secret() {
    local organization=${ORGANIZATION_ID:-$NOW_ORGANIZATION_ID}
    [ -z "$SECRET$NOW_SECRET" ] || return 0
    [ -n "${organization#none}" ] && [ -z "$SECRET_STDIN$ROTATE_SECRET" ] || SECRET=dt-signature-secret
}

# The forms in which the deployed function shows them.
normalize() {
    MEMORY=${MEMORY%B}
    case $MEMORY in *[0-9]) MEMORY+=M ;; esac
    case $TIMEOUT in
    *m) TIMEOUT=$((${TIMEOUT%m} * 60)) ;;
    *s) TIMEOUT=${TIMEOUT%s} ;;
    esac
}

check_settings() {
    [ "$DEVICES" != "$COLLECTION" ] && [ "$DEVICES" != "${COLLECTION}_quarantine" ] ||
        refuse "--devices must be another collection than those of the events"
    [ -n "$SECRET$ORGANIZATION_ID" ] || refuse "a secret or an organization is needed: set --secret or --organization-id"
    [ -n "$SECRET" ] || [ -z "$ROTATE_SECRET$RETIRE_SECRET$SECRET_STDIN$SHOW_SECRET" ] ||
        refuse "there is no secret: --secret, --secret-stdin or --rotate-secret makes one"
    [ -z "$NOW_PLAIN_SECRET" ] || [ -n "$SECRET_STDIN" ] ||
        fail "The function has its signature secret in a plain variable. Give it to Secret Manager: run again with \
--secret-stdin, and with the secret on standard input."
}

# example.com:my-project has accounts in my-project.example.com.iam.gserviceaccount.com.
account_email() {
    local domain=$PROJECT
    case $PROJECT in *:*) domain=${PROJECT#*:}.${PROJECT%%:*} ;; esac
    case $1 in
    '' | *@*) printf %s "$1" ;;
    *) printf %s "$1@$domain.iam.gserviceaccount.com" ;;
    esac
}

show_plan() {
    local first=''
    [ -n "$NOW_EXISTS" ] || first=true
    plan Project "$PROJECT"
    plan Region "$REGION"
    plan Function "$NAME, public${first:+, new}"
    plan_database
    plan_settings
    plan_secret
    plan_traffic
    plan_rules
    plan_connect
    plan_monitoring
    plan_repair
}

plan_settings() {
    local label setting now
    while read -r setting label; do
        now=NOW_$setting
        [ -n "$NOW_EXISTS" ] || now=$setting
        plan "$label" "$(difference "${!now}" "${!setting}")"
    done <<'LABELS'
COLLECTION Events
DEVICES Devices
RETENTION_DAYS Retention
ORGANIZATION_ID DT org.
EMAIL Account
RUNTIME Runtime
CPU CPU
MEMORY Memory
CONCURRENCY Concurrency
TIMEOUT Timeout
MIN_INSTANCES Instances ≥
MAX_INSTANCES Instances ≤
LEEWAY Leeway
LOG_LEVEL Log level
LABELS
}

plan_traffic() {
    [ -z "$NOW_EXISTS" ] || [ "$NOW_TRAFFIC" = newest ] || plan Traffic "${NOW_TRAFFIC:-none} → the newest revision"
}

# What --yes confirms is what the user has named in this run; nothing of it can change without being named.
confirm() {
    [ -z "$YES$DRY_RUN" ] || return 0
    ask "Continue?"
    [ -n "$NOW_EXISTS" ] || return 0
    [ "$NOW_DATABASE/$NOW_COLLECTION" = "$DATABASE/$COLLECTION" ] ||
        ask "Stored events stay in $NOW_DATABASE/$NOW_COLLECTION; new ones go to $DATABASE/$COLLECTION. Change it?"
    [ "$NOW_RETENTION_DAYS" = "$RETENTION_DAYS" ] ||
        ask "Events are kept for ${RETENTION_DAYS:-unlimited} days instead of ${NOW_RETENTION_DAYS:-unlimited}. Change it?"
    [ -z "$RETIRE_SECRET" ] ||
        ask "Deliveries signed with the old secret are refused from now on. Do all Data Connectors sign with the new one?"
    [ -z "$NOW_SECRET" ] || [ -n "$SECRET" ] ||
        ask "Deliveries that only the secret $NOW_SECRET proves are refused from now on. Change it?"
    [ -z "$NOW_ORGANIZATION_ID" ] || [ "$NOW_ORGANIZATION_ID" = "$ORGANIZATION_ID" ] ||
        ask "Deliveries that only DT's public key proves are accepted from ${ORGANIZATION_ID:-no organization}. Change it?"
}

ask() {
    local answer=''
    printf '%s [y/N] ' "$1" >&2
    read -r answer || say ""
    case $answer in
    y | Y | yes) ;;
    *) STEP='' && fail "Nothing was changed." ;;
    esac
}
