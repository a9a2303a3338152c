# Step 8: the Data Connector. Sourced by deploy.sh; see deploy/common.sh.
# "${SECRET_LINES[@]}" is the command that prints the signature secret; SECRET is empty without a secret. URL_OPTION is
# --url=URL, and with --dry-run, before there is a function, --url=$(…), a command for the shell.

values+=" connect-dt-project dt-labels dt-event-types"

check_connect() {
    [ -n "$CONNECT_DT_PROJECT" ] || return 0
    local name
    for name in DT_SERVICE_ACCOUNT_KEY_ID DT_SERVICE_ACCOUNT_SECRET DT_SERVICE_ACCOUNT_EMAIL; do
        [ -n "${!name:-}" ] || refuse "--connect-dt-project needs the environment variable $name"
    done
}

plan_connect() {
    [ -z "$CONNECT_DT_PROJECT" ] || plan "Connector" "in the DT project $CONNECT_DT_PROJECT"
}

connect() {
    [ -n "$CONNECT_DT_PROJECT" ] || return 0
    # A .venv that has the package is used as it is, even if the requirements have changed since.
    # shellcheck source=local/venv.sh
    [ -n "$DRY_RUN" ] || .venv/bin/python -c 'import disruptive' 2>/dev/null || { source local/venv.sh && ensure_venv; }
    run "${SECRET_LINES[@]}" '|' .venv/bin/python -m deploy.data_connector "--project=$CONNECT_DT_PROJECT" \
        "--name=$NAME" "--labels=$DT_LABELS" "--event-types=$DT_EVENT_TYPES" "$URL_OPTION"
}

# With --remove, before anything else is removed: the Data Connector of this endpoint is deleted or disabled.
disconnect() {
    :
}
