# Step 8: the Data Connector, and the proof that its events arrive. Sourced by deploy.sh; see deploy/common.sh.
# "${SECRET_LINES[@]}" is the command that prints the signature secret; SECRET is empty without a secret. URL_OPTION is
# --url=URL, and with --dry-run, before there is a function, --url=$(…), a command for the shell.

flags+=" prove wait-for-event"
values+=" connect-dt-project dt-labels dt-event-types"
EVENT_SECONDS=1800 # that --wait-for-event waits: a sensor reports at least every 15 minutes as a rule

check_connect() {
    local name
    [ -z "$PROVE" ] || [ -n "$CONNECT_DT_PROJECT" ] || refuse "--prove needs --connect-dt-project"
    if [ -n "$CONNECT_DT_PROJECT" ]; then
        for name in DT_SERVICE_ACCOUNT_KEY_ID DT_SERVICE_ACCOUNT_SECRET DT_SERVICE_ACCOUNT_EMAIL; do
            [ -n "${!name:-}" ] || refuse "--connect-dt-project needs the environment variable $name"
        done
        look_up_organization
    elif [ "$ORGANIZATION_ID" = auto ]; then
        refuse "--organization-id auto needs --connect-dt-project"
    fi
}

# Asks DT for the organization of the project, which also tells whether DT accepts the service account.
look_up_organization() {
    local organization
    [ -z "$DRY_RUN" ] || [ "$ORGANIZATION_ID" = auto ] || return 0
    prepare_python
    organization=$(.venv/bin/python -m deploy.organization "--project=$CONNECT_DT_PROJECT") ||
        fail "DT does not accept --connect-dt-project; see the error above."
    [ "$ORGANIZATION_ID" != auto ] || ORGANIZATION_ID=$organization
}

# A .venv that has the package is used as it is, even if the requirements have changed since. PYTHON may be too old for it.
prepare_python() {
    # shellcheck source=local/venv.sh
    .venv/bin/python -c 'import disruptive' 2>/dev/null || { source local/venv.sh && PYTHON='' ensure_venv; }
}

plan_connect() {
    [ -z "$CONNECT_DT_PROJECT" ] || plan "Connector" "in the DT project $CONNECT_DT_PROJECT"
}

connect() {
    if [ -n "$CONNECT_DT_PROJECT" ]; then
        ensure_connector
    fi
    if [ -n "$WAIT_FOR_EVENT" ]; then
        wait_for_event
    fi
}

# An option that is not given leaves the labels and event types of an existing connector as they are.
ensure_connector() {
    local lines=() options=("--project=$CONNECT_DT_PROJECT" "--name=$NAME" "$URL_OPTION")
    [ -z "$DT_LABELS" ] || options+=("--labels=$DT_LABELS")
    [ -z "$DT_EVENT_TYPES" ] || options+=("--event-types=$DT_EVENT_TYPES")
    if [ -n "$SECRET" ]; then lines=("${SECRET_LINES[@]}" '|'); else options+=(--no-secret); fi
    if [ -n "$PROVE" ]; then
        lines=(bash deploy/credentials.sh "$PROJECT" ${SECRET:+"$SECRET" "$VERSION"} '|')
        options+=(--prove "--documents=$(documents)" "--patience=${PATIENCE:-120}")
    fi
    run ${lines[@]+"${lines[@]}"} .venv/bin/python -m deploy.data_connector "${options[@]}"
}

# After the connection, because DT sends nothing before.
wait_for_event() {
    run bash deploy/credentials.sh "$PROJECT" '|' "$PYTHON" deploy/smoke_test.py "--documents=$(documents)" \
        "--wait-for-event=$EVENT_SECONDS"
}

# With --remove, before anything else is removed: the Data Connectors of this endpoint are deleted.
disconnect() {
    [ -n "$CONNECT_DT_PROJECT" ] && [ -n "$URL" ] || return 0
    run .venv/bin/python -m deploy.data_connector "--project=$CONNECT_DT_PROJECT" "$URL_OPTION" --disconnect
}
