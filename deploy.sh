#!/usr/bin/env bash
# Deploys the function to Google Cloud: from an empty project to a tested endpoint that stores events in Firestore.
# Each step reads the current state and changes only what is missing or different. Runs on the bash 3.2 of macOS too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

PROJECT=${DEPLOY_PROJECT:-${GOOGLE_CLOUD_PROJECT:-}}
REGION=${DEPLOY_REGION:-${GOOGLE_CLOUD_REGION:-}}
NAME=${DEPLOY_NAME:-dataconnector-endpoint}
DATABASE=${DEPLOY_DATABASE:-(default)}
LOCATION=${DEPLOY_LOCATION:-}
COLLECTION=${DEPLOY_COLLECTION:-events}
DEVICES=${DEPLOY_DEVICES:-}
INDEX=${DEPLOY_INDEX:-}
ORGANIZATION_ID=${DEPLOY_ORGANIZATION_ID:-}
RETENTION_DAYS=${DEPLOY_RETENTION_DAYS:-}
LEEWAY=${DEPLOY_LEEWAY:-10}
LOG_LEVEL=${DEPLOY_LOG_LEVEL:-INFO}
SECRET=${DEPLOY_SECRET:-}
ACCOUNT=${DEPLOY_ACCOUNT:-dataconnector-endpoint}
RUNTIME=${DEPLOY_RUNTIME:-python313}
CONCURRENCY=${DEPLOY_CONCURRENCY:-80}
CPU=${DEPLOY_CPU:-1}
MEMORY=${DEPLOY_MEMORY:-512Mi}
TIMEOUT=${DEPLOY_TIMEOUT:-30s}
MIN_INSTANCES=${DEPLOY_MIN_INSTANCES:-0}
MAX_INSTANCES=${DEPLOY_MAX_INSTANCES:-100}
PATIENCE=${DEPLOY_PATIENCE:-120}
CONNECT_DT_PROJECT=${DEPLOY_CONNECT_DT_PROJECT:-}
DT_LABELS=${DEPLOY_DT_LABELS:-}
DT_EVENT_TYPES=${DEPLOY_DT_EVENT_TYPES:-}
YES='' DRY_RUN='' FORCE='' SECRET_STDIN='' ROTATE_SECRET='' RETIRE_SECRET='' SHOW_SECRET=''
STEP='' TITLE='' ADVICE='' GIVEN='' PYTHON=''

ROLE=dataconnectorEventCreator
APIS="artifactregistry cloudbuild cloudfunctions firestore iam logging run secretmanager storage"

usage() {
    cat <<'USAGE'
usage: ./deploy.sh [OPTION …]

Deploys the function to Google Cloud with everything that it needs, and tests it with signed deliveries.
Another run changes only what is different. Needs gcloud (logged in), bash and openssl.

  --project ID             default: GOOGLE_CLOUD_PROJECT, else gcloud's configuration
  --region REGION          default: GOOGLE_CLOUD_REGION, else gcloud's configuration
  --name NAME              of the function                        (dataconnector-endpoint)
  --database ID            of the Firestore database              ((default))
  --location LOCATION      of a new Firestore database            (the region)
  --collection ID          of the events                          (events)
  --devices NAME           of the newest state of each device     (not kept)
  --index labels.NAME      index this label with timestamp; can be given several times
  --retention-days N       delete each document after N days      (kept for ever)
  --leeway SECONDS         tolerance on a signature's times       (10)
  --log-level LEVEL                                               (INFO)

  --organization-id ID     trust DT's public key for this DT organization; several: A,B. Without one of the options
                           for a secret below, no secret is created or used
  --secret NAME            in Secret Manager                      (dt-signature-secret)
  --secret-stdin           read the signature secret from standard input; several secrets, one per line
  --rotate-secret          add a new secret before the old one; both are accepted
  --retire-secret          remove the old secret
  --show-secret            print the secret at the end

  --account NAME           of the function's service account      (dataconnector-endpoint)
  --runtime RUNTIME                                               (python313)
  --concurrency N          concurrent requests per instance       (80)
  --cpu N                                                         (1)
  --memory SIZE                                                   (512Mi)
  --timeout DURATION                                              (30s)
  --min-instances N                                               (0)
  --max-instances N                                               (100)
  --patience SECONDS       wait for a new endpoint to answer      (120)
  --force                  deploy the function even if nothing in it changed

  --connect-dt-project ID  create or update the Data Connector in this DT project; DT_SERVICE_ACCOUNT_KEY_ID,
                           …_SECRET and …_EMAIL hold the credentials of a DT service account
  --dt-labels A,B          labels to send with each event         (none)
  --dt-event-types A,B     event types to send                    (all)

  --dry-run                print each command that would change something; change nothing
  --yes                    do not ask for confirmation
  --help                   show this text

Each option that takes a value can also be set in the environment: DEPLOY_MEMORY=1Gi for --memory 1Gi.

examples:
  ./deploy.sh --project my-project --region europe-west1 --dry-run
  ./deploy.sh --project my-project --region europe-west1
  ./deploy.sh --retention-days 365 --yes
  ./deploy.sh --secret-stdin < secret.txt
  ./deploy.sh --connect-dt-project bhmh0143iktucae701vg --dt-labels name,room
  ./deploy.sh --rotate-secret
USAGE
}

main() {
    trap explain_failure EXIT
    SCRATCH=$(mktemp -d)
    read_options "$@"
    check_options
    check_machine
    choose_project
    show_plan
    check_cloud
    ensure_database
    ensure_account
    ensure_secret
    ensure_indexes
    deploy_function
    smoke_test
    finish
}

# --- options ---------------------------------------------------------------------------------------------------------

read_options() {
    while [ $# -gt 0 ]; do
        case $1 in
        --help | -h) usage && exit 0 ;;
        --yes | --dry-run | --force | --secret-stdin | --rotate-secret | --retire-secret | --show-secret)
            printf -v "$(variable "$1")" true && shift ;;
        --index)
            [ $# -gt 1 ] || refuse "$1 needs a value"
            INDEX="$INDEX $2" && shift 2 ;;
        --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
        --project | --region | --name | --database | --location | --collection | --devices | --organization-id | --retention-days | --leeway | \
            --log-level | --secret | --account | --runtime | --concurrency | --cpu | --memory | --timeout | \
            --min-instances | --max-instances | --patience | --connect-dt-project | --dt-labels | --dt-event-types)
            [ $# -gt 1 ] || refuse "$1 needs a value"
            printf -v "$(variable "$1")" %s "$2" && shift 2 ;;
        *) refuse "$1 is not an option" ;;
        esac
    done
}

variable() {
    printf %s "${1#--}" | tr 'a-z-' 'A-Z_'
}

check_options() {
    local number='0|[1-9][0-9]{0,5}'
    must DATABASE '\(default\)|[a-z][a-z0-9-]{2,61}[a-z0-9]' "a database id"
    must COLLECTION '[A-Za-z0-9][A-Za-z0-9_-]{0,99}' "letters, digits, - and _"
    must DEVICES '|[A-Za-z0-9][A-Za-z0-9_-]{0,99}' "letters, digits, - and _"
    [ "$DEVICES" != "$COLLECTION" ] && [ "$DEVICES" != "${COLLECTION}_quarantine" ] ||
        refuse "--devices must be another collection than those of the events"
    must INDEX '( *labels\.[A-Za-z_][A-Za-z0-9_]*)*' "labels.NAME, with letters, digits and _"
    must ORGANIZATION_ID '|[A-Za-z0-9]+(,[A-Za-z0-9]+)*' "ids of DT organizations, separated by commas"
    must RETENTION_DAYS '|[2-9]|[1-9][0-9]{1,5}' "a whole number of days, 2 or more"
    must LEEWAY "$number" "a whole number of seconds"
    must LOG_LEVEL 'DEBUG|INFO|WARNING|ERROR|CRITICAL' "DEBUG, INFO, WARNING, ERROR or CRITICAL"
    must NAME '[a-z]([a-z0-9-]{0,61}[a-z0-9])?' "lower-case letters, digits and -"
    [ -n "$ORGANIZATION_ID" ] && [ -z "$SECRET_STDIN$ROTATE_SECRET$RETIRE_SECRET$SHOW_SECRET" ] ||
        SECRET=${SECRET:-dt-signature-secret}
    [ -n "$SECRET" ] || [ -z "$CONNECT_DT_PROJECT" ] || refuse "--connect-dt-project needs a secret: set --secret"
    must SECRET '|[A-Za-z0-9_-]{1,255}' "letters, digits, - and _"
    must ACCOUNT '[a-z][a-z0-9-]{4,28}[a-z0-9]' "6 to 30 lower-case letters, digits and -"
    must CONCURRENCY "$number" "a whole number"
    must MIN_INSTANCES "$number" "a whole number"
    must MAX_INSTANCES "$number" "a whole number"
    must PATIENCE "$number" "a whole number of seconds"
    case $SECRET_STDIN$ROTATE_SECRET$RETIRE_SECRET in
    truetrue*) refuse "--secret-stdin, --rotate-secret and --retire-secret exclude each other" ;;
    esac
}

must() {
    [[ ${!1} =~ ^($2)$ ]] || refuse "--$(printf %s "$1" | tr 'A-Z_' 'a-z-') must be $3"
}

# --- words -----------------------------------------------------------------------------------------------------------

say() {
    printf '%s\n' "$@" >&2
}

refuse() {
    say "deploy.sh: $1; see ./deploy.sh --help"
    exit 2
}

fail() {
    say "deploy.sh: $1"
    exit 1
}

step() {
    STEP=$1 TITLE=$2 ADVICE=$3
    say "" "[$STEP/8] $TITLE"
}

explain_failure() {
    local status=$?
    rm -rf "${SCRATCH:-}"
    if [ $status -ne 0 ] && [ $status -ne 2 ] && [ -n "$STEP" ]; then
        say "" "deploy.sh: step $STEP of 8 ($TITLE) failed; see the error above." "$ADVICE" \
            "Then run the same command again: it skips what is already done."
    fi
}

# --- commands --------------------------------------------------------------------------------------------------------

# Reads the current state. To a dry run, what cannot be read does not exist: in a new project most APIs are disabled.
look() {
    gcloud "$@" --project="$PROJECT" 2>"$SCRATCH/stderr" && return
    [ -n "$DRY_RUN" ] && return
    cat "$SCRATCH/stderr" >&2
    return 1
}

# Runs a shell command, or prints it with --dry-run, so that the printed command is the one that would run.
change() {
    if [ -n "$DRY_RUN" ]; then
        printf '%s\n' "$1"
    else
        eval "$1"
    fi
}

cloud() {
    quoted gcloud "$@" "--project=$PROJECT" --quiet
}

quoted() {
    local word line=''
    for word in "$@"; do
        case $word in
        *\'*) line+=$(printf ' %q' "$word") ;;
        '' | *[!A-Za-z0-9_./:=@,+-]*) line+=" '$word'" ;;
        *) line+=" $word" ;;
        esac
    done
    printf %s "${line# }"
}

has() {
    grep -qxF -- "$2" <<<"$1"
}

# A new service account takes a while to be known everywhere.
retry() {
    local pause
    for pause in 1 2 4 8 16; do
        change "$1" && return
        say "Trying again in $pause s …"
        sleep $pause
    done
    change "$1"
}

# --- the eight steps -------------------------------------------------------------------------------------------------

check_machine() {
    step 1 "checks" "Fix the problem above."
    [ -z "${FIRESTORE_EMULATOR_HOST:-}" ] ||
        fail "FIRESTORE_EMULATOR_HOST is set, but this deploys to the real Firestore: unset it."
    local tool
    for tool in gcloud openssl; do
        command -v $tool >/dev/null || fail "$tool is not installed. For gcloud see https://cloud.google.com/sdk/docs/install"
    done
    PYTHON=$(command -v python3 || gcloud info --format='value(basic.python_location)')
    export CLOUDSDK_CORE_DISABLE_PROMPTS=1
    [ -z "$SECRET_STDIN" ] || read_secret
}

read_secret() {
    [ ! -t 0 ] || say "Enter the signature secret, then Ctrl-D:"
    GIVEN=$(sed -e 's/^[[:space:]]*//' -e 's/[[:space:]]*$//' -e '/^$/d')
    [ -n "$GIVEN" ] || fail "Standard input holds no secret."
    YES=true # standard input is used up, so that nobody can answer a question
}

choose_project() {
    local configured=','
    [ -n "$PROJECT" ] && [ -n "$REGION" ] || configured=$(gcloud config list --format='csv[no-heading](core.project,functions.region,run.region,compute.region)')
    PROJECT=${PROJECT:-${configured%%,*}}
    [ -n "$REGION" ] || REGION=$(printf %s "${configured#*,}" | tr ',' '\n' | grep -m 1 . || true)
    [ -n "$PROJECT" ] || refuse "no project: set one with --project"
    [ -n "$REGION" ] || refuse "no region: set one with --region, for example europe-west1"
    must PROJECT '[a-z][a-z0-9.:-]{4,61}[a-z0-9]' "a project id"
    must REGION '[a-z]+-[a-z]+[0-9]+' "a region such as europe-west1"
    LOCATION=${LOCATION:-$REGION}
    EMAIL=$ACCOUNT@$PROJECT.iam.gserviceaccount.com
}

show_plan() {
    say "Project     $PROJECT" "Region      $REGION" "Function    $NAME ($RUNTIME), public, as $EMAIL" \
        "Firestore   $DATABASE, collections $COLLECTION and ${COLLECTION}_quarantine" \
        "Retention   ${RETENTION_DAYS:-unlimited}${RETENTION_DAYS:+ days}" "Secret      ${SECRET:-none}" \
        "Devices     ${DEVICES:-not kept}" "DT org.     ${ORGANIZATION_ID:-none}"
    [ -z "$YES$DRY_RUN" ] || return 0
    local answer=''
    read -r -p "Continue? [y/N] " answer || true
    case $answer in
    y | Y | yes) ;;
    *) STEP='' && fail "Nothing was changed." ;;
    esac
}

check_cloud() {
    local billing
    gcloud projects describe "$PROJECT" --format=none ||
        fail "The project $PROJECT cannot be read. Check that gcloud is logged in (gcloud auth login), that the project \
id is correct, and that this account has access to the project."
    if billing=$(gcloud billing projects describe "$PROJECT" --format='value(billingEnabled)' 2>"$SCRATCH/stderr"); then
        [ "$billing" = True ] ||
            fail "Billing is disabled. Enable it: https://console.cloud.google.com/billing/linkedaccount?project=$PROJECT"
    else
        say "Cannot read whether billing is enabled; if it is disabled, the next step fails:" "$(cat "$SCRATCH/stderr")"
    fi
}

ensure_database() {
    step 2 "APIs and the Firestore database" "This step needs the role Owner or Editor of the project, and billing."
    local enabled api type missing=()
    enabled=$(look services list --enabled --format='value(config.name)')
    for api in $APIS; do
        has "$enabled" "$api.googleapis.com" || missing+=("$api.googleapis.com")
    done
    [ ${#missing[@]} -eq 0 ] || change "$(cloud services enable "${missing[@]}" --format=none)"
    type=$(look firestore databases list --format='csv[no-heading](name.basename(),type)')
    if has "$type" "$DATABASE,DATASTORE_MODE"; then
        fail "The database $DATABASE is in Datastore mode: choose another one with --database."
    fi
    has "$type" "$DATABASE,FIRESTORE_NATIVE" ||
        change "$(cloud firestore databases create "--database=$DATABASE" "--location=$LOCATION" \
            --type=firestore-native --delete-protection --format=none)"
}

# The function only creates documents, for which one permission is enough; for devices it also reads and updates. roles/datastore.user would also allow
# it to read, change and delete every document of every database.
ensure_account() {
    step 3 "the service account" "This step needs roles/iam.serviceAccountAdmin, roles/iam.roleAdmin and \
roles/resourcemanager.projectIamAdmin."
    local accounts role member condition bindings permissions=datastore.entities.create
    permissions+=${DEVICES:+,datastore.entities.get,datastore.entities.update}
    accounts=$(look iam service-accounts list --format='value(email)')
    has "$accounts" "$EMAIL" ||
        change "$(cloud iam service-accounts create "$ACCOUNT" "--display-name=Stores Data Connector events")"
    role=$(look iam roles list --show-deleted --format='csv[no-heading](name.basename(),deleted)')
    if has "$role" "$ROLE,True"; then
        change "$(cloud iam roles undelete $ROLE --format=none)"
    elif ! has "$role" "$ROLE,"; then
        change "$(cloud iam roles create $ROLE "--title=Data Connector event creator" \
            "--permissions=$permissions" --stage=GA --format=none)"
    fi
    if has "$role" "$ROLE," || has "$role" "$ROLE,True"; then
        ensure_permissions "$permissions"
    fi
    member=serviceAccount:$EMAIL role=projects/$PROJECT/roles/$ROLE
    condition="resource.name==\"projects/$PROJECT/databases/$DATABASE\""
    bindings=$(look projects get-iam-policy "$PROJECT" --flatten='bindings[].members' \
        --format='value[separator=" "](bindings.members,bindings.role,bindings.condition.expression)')
    has "$bindings" "$member $role $condition" ||
        retry "$(cloud projects add-iam-policy-binding "$PROJECT" "--member=$member" "--role=$role" \
            "--condition=^;^expression=$condition;title=only $DATABASE" --format=none)"
}

ensure_permissions() {
    local present
    present=$(look iam roles describe "$ROLE" --format='value[delimiter=","](includedPermissions)')
    [ "$present" = "$1" ] || change "$(cloud iam roles update $ROLE "--permissions=$1" --format=none)"
}

# The function uses a numbered version, not "latest": instances read a secret when they start, so with "latest" old and
# new instances would use different secrets for a while. A new version number makes a new revision, which replaces all.
ensure_secret() {
    step 4 "the signature secret" "This step needs roles/secretmanager.admin."
    local secrets bindings member=serviceAccount:$EMAIL
    [ -n "$SECRET" ] || return 0
    secrets=$(look secrets list --format='value(name.basename())')
    has "$secrets" "$SECRET" || change "$(cloud secrets create "$SECRET" --replication-policy=automatic)"
    bindings=$(look secrets get-iam-policy "$SECRET" --flatten='bindings[].members' \
        --format='value[separator=" "](bindings.members,bindings.role)')
    has "$bindings" "$member roles/secretmanager.secretAccessor" ||
        retry "$(cloud secrets add-iam-policy-binding "$SECRET" "--member=$member" \
            --role=roles/secretmanager.secretAccessor --format=none)"
    VERSION=$(newest_version)
    update_secret
}

newest_version() {
    look secrets versions list "$SECRET" --filter=state=ENABLED --sort-by=~createTime --limit=1 \
        --format='value(name.basename())'
}

update_secret() {
    local old=''
    if [ -n "$VERSION" ] && [ -n "$SECRET_STDIN$ROTATE_SECRET$RETIRE_SECRET" ]; then
        old=$(look secrets versions access "$VERSION" "--secret=$SECRET" | sed '/^[[:space:]]*$/d')
    fi
    if [ -n "$SECRET_STDIN" ]; then
        # shellcheck disable=SC2016  # the line may be printed, and eval runs it: it must not contain the secret
        [ "$old" = "$GIVEN" ] || add_version 'printf "%s\n" "$GIVEN"'
    elif [ -z "$VERSION" ]; then
        add_version 'openssl rand -hex 32'
    elif [ -n "$ROTATE_SECRET" ]; then
        require_secrets "$old" 1 "A rotation is in progress: end it with --retire-secret first"
        # shellcheck disable=SC2016  # as above
        add_version '{ openssl rand -hex 32; printf "%s\n" "$OLD"; }' "OLD=\$($(access_secret)) && "
    elif [ -n "$RETIRE_SECRET" ]; then
        require_secrets "$old" 2 "No rotation is in progress"
        # shellcheck disable=SC2016  # as above
        add_version 'printf "%s\n" "$OLD" | head -n 1' "OLD=\$($(access_secret)) && "
    fi
}

require_secrets() {
    [ "$(grep -c . <<<"$1" || true)" -eq "$2" ] ||
        fail "$3. (Version $VERSION of $SECRET is in use; for several connectors, --secret-stdin sets all secrets.)"
}

access_secret() {
    cloud secrets versions access "$VERSION" "--secret=$SECRET"
}

# Reads into a variable first, so that a failed read does not add an incomplete version.
add_version() {
    change "${2:-}$1 | $(cloud secrets versions add "$SECRET" --data-file=- --format=none)"
    if [ -n "$DRY_RUN" ]; then
        VERSION=$((${VERSION:-0} + 1))
    else
        VERSION=$(newest_version)
    fi
}

# Firestore indexes every field by default. An index on values that increase with time limits a collection to 500
# writes/s, and an index that no query uses costs time and storage. timestamp keeps its index for queries by time.
ensure_indexes() {
    step 5 "indexes" "This step needs roles/datastore.indexAdmin."
    local present wanted fields kind group name rest
    present=$(look firestore indexes composite list "--database=$DATABASE" --format=json)
    # shellcheck disable=SC2086  # INDEX is a list of words
    wanted=$("$PYTHON" deploy/indexes.py deploy/firestore.indexes.json "$COLLECTION" "$DEVICES" $INDEX <<<"$present")
    fields=$(look firestore indexes fields list "--database=$DATABASE" \
        --format="value[separator=' '](name.segment(5),name.segment(7),indexConfig.indexes.len(),ttlConfig.state)")
    while read -r -u 3 kind group name rest; do
        case $kind in
        index)
            # shellcheck disable=SC2086  # pairs of words
            create_index "$group" $name $rest ;;
        exempt) ensure_exempt "$group" "$name" ;;
        esac
    done 3<<<"$wanted"
    while read -r -u 3 kind group name; do
        [ "$kind" != ttl ] || ensure_ttl "$group"
    done 3<<<"$wanted"
}

create_index() {
    local group=$1 configs=()
    shift
    while [ $# -gt 0 ]; do
        configs+=("--field-config=field-path=$1,order=$(printf %s "$2" | tr '[:upper:]' '[:lower:]')") && shift 2
    done
    background "$(cloud firestore indexes composite create "--collection-group=$group" "--database=$DATABASE" \
        "${configs[@]}" --async)"
}

ensure_exempt() {
    grep -q "^$1 $2 0 " <<<"$fields" ||
        background "$(cloud firestore indexes fields update "$2" "--collection-group=$1" "--database=$DATABASE" \
            --disable-indexes --async)"
}

ensure_ttl() {
    local wanted=--disable-ttl now=--disable-ttl
    [ -z "$RETENTION_DAYS" ] || wanted=--enable-ttl
    ! grep -qE "^$1 expireAt 0 (CREATING|ACTIVE)$" <<<"$fields" || now=--enable-ttl
    [ $wanted = $now ] ||
        background "$(cloud firestore fields ttls update expireAt "--collection-group=$1" "--database=$DATABASE" \
            $wanted --async)"
}

background() {
    change "$1 --format=none"
    [ -n "$BACKGROUND_SAID" ] || say "Firestore applies these changes in the background, and stores events meanwhile."
    BACKGROUND_SAID=true
}
BACKGROUND_SAID=''

# gcloud would upload, build and roll out again each time. A label holds a digest of what was deployed.
deploy_function() {
    step 6 "the function" "See the build's log: https://console.cloud.google.com/cloud-build/builds?project=$PROJECT
If the build lacks a permission, grant the project's build account its role (PROJECT_NUMBER is the project's number):
gcloud projects add-iam-policy-binding $PROJECT --role=roles/cloudbuild.builds.builder --condition=None \\
  --member=serviceAccount:PROJECT_NUMBER-compute@developer.gserviceaccount.com"
    local environment secrets command digest deployed
    environment="^;^GOOGLE_CLOUD_PROJECT=$PROJECT;FUNCTION_USE_ASGI=true;FIRESTORE_DATABASE=$DATABASE"
    environment+=";EVENTS_COLLECTION=$COLLECTION;SIGNATURE_LEEWAY_SECONDS=$LEEWAY;LOG_LEVEL=$LOG_LEVEL"
    environment+=";LOG_EXECUTION_ID=false${RETENTION_DAYS:+;RETENTION_DAYS=$RETENTION_DAYS}"
    environment+="${DEVICES:+;DEVICES_COLLECTION=$DEVICES}${ORGANIZATION_ID:+;DT_ORGANIZATION_ID=$ORGANIZATION_ID}"
    secrets=--clear-secrets
    [ -z "$SECRET" ] || secrets=--set-secrets=DT_SIGNATURE_SECRET=$SECRET:$VERSION
    command=$(cloud functions deploy "$NAME" --gen2 "--region=$REGION" --source=. "--runtime=$RUNTIME" \
        --entry-point=dataconnector_endpoint --trigger-http --allow-unauthenticated "--service-account=$EMAIL" \
        "--set-env-vars=$environment" "$secrets" \
        "--concurrency=$CONCURRENCY" "--cpu=$CPU" "--memory=$MEMORY" "--timeout=$TIMEOUT" \
        "--min-instances=$MIN_INSTANCES" "--max-instances=$MAX_INSTANCES" --ingress-settings=all \
        --serve-all-traffic-latest-revision --clear-build-env-vars --clear-vpc-connector --clear-labels --format=none)
    digest=$(digest "$command")
    deployed=$(look functions list --v2 "--regions=$REGION" \
        --format="value[separator=' '](name.basename(),state,labels.deployed,stateMessages.len())")
    if [ -z "$FORCE" ] && has "$deployed" "$NAME ACTIVE $digest 0" && is_public; then
        say "The function has not changed."
    else
        change "$command --update-labels=deployed=$digest"
    fi
    DESCRIBE=(functions describe "$NAME" --gen2 "--region=$REGION" "--format=value(serviceConfig.uri)")
    URL=$(look "${DESCRIBE[@]}")
}

url_option() {
    if [ -n "$URL" ]; then
        quoted "--url=$URL"
    else
        # shellcheck disable=SC2016  # printed, to be pasted into a shell
        printf '"--url=$(%s)"' "$(cloud "${DESCRIBE[@]}")"
    fi
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

smoke_test() {
    local options=()
    step 7 "a signed delivery" "See the function's log: gcloud functions logs read $NAME --region=$REGION"
    local documents=${CLOUDSDK_API_ENDPOINT_OVERRIDES_FIRESTORE:-https://firestore.googleapis.com/}v1
    documents+=/projects/$PROJECT/databases/$DATABASE/documents/$COLLECTION
    [ -n "$SECRET" ] || options=(--no-secret)
    # By default gcloud also writes the token that it prints into its log file.
    change "{ CLOUDSDK_CORE_DISABLE_FILE_LOGGING=true gcloud auth print-access-token${SECRET:+ && $(access_secret)}; } | $(quoted "$PYTHON" deploy/smoke_test.py \
        "--documents=$documents" "--patience=$PATIENCE" ${options[@]+"${options[@]}"}) $(url_option)"
}

finish() {
    step 8 "the connection" "The endpoint itself is ready."
    ensure_metric
    connect
    [ -z "$DRY_RUN" ] || return 0
    STEP=''
    report
}

ensure_metric() {
    local metrics metric="$NAME-outcomes" file
    metrics=$(look logging metrics list --format='value(name)')
    has "$metrics" "$metric" && return
    file='{"description": "Deliveries by outcome", "labelExtractors": {"outcome": "EXTRACT(jsonPayload.outcome)"}, '
    file+='"metricDescriptor": {"metricKind": "DELTA", "valueType": "INT64", "labels": [{"key": "outcome"}]}, "filter": '
    file+="\"resource.type=cloud_run_revision AND resource.labels.service_name=$NAME AND jsonPayload.outcome:*\"}"
    change "echo $(quoted "$file") | $(cloud logging metrics create "$metric" --config-from-file=-)"
}

connect() {
    [ -n "$CONNECT_DT_PROJECT" ] || return 0
    # A .venv that has the package is used as it is, even if the requirements have changed since.
    # shellcheck source=local/venv.sh
    [ -n "$DRY_RUN" ] || .venv/bin/python -c 'import disruptive' 2>/dev/null || { source local/venv.sh && ensure_venv; }
    change "$(access_secret) | $(quoted .venv/bin/python -m deploy.data_connector "--project=$CONNECT_DT_PROJECT" \
        "--name=$NAME" "--labels=$DT_LABELS" "--event-types=$DT_EVENT_TYPES") $(url_option)"
}

report() {
    printf '\nThe endpoint is ready:\n\n    %s\n\n' "$URL"
    if [ -z "$CONNECT_DT_PROJECT" ]; then
        printf '%s\n' "In DT Studio: API Integrations > Data Connectors > Create New Data Connector" \
            "    Endpoint URL        $URL" "    Signature Secret    $(shown_secret)" \
            "    Labels              the labels that the documents should have" ""
    elif [ -n "$SHOW_SECRET" ]; then
        printf 'Signature secret: %s\n' "$(shown_secret)"
    fi
    echo "The log-based metric $NAME-outcomes counts deliveries by outcome; for an alert on it see README.md, Deploy."
}

shown_secret() {
    if [ -z "$SECRET" ]; then
        echo "none; DT signs with its public key"
    elif [ -n "$SHOW_SECRET" ]; then
        look secrets versions access "$VERSION" "--secret=$SECRET" | grep -m 1 .
    else
        printf 'the first line of: %s' "$(access_secret)"
    fi
}

main "$@"
