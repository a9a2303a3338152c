# Step 4: the signature secret. Sourced by deploy.sh; see deploy/common.sh.

# The secret stays out of the trace of `bash -x`.
read_secret() {
    [ -n "$SECRET_STDIN" ] || return 0
    [ ! -t 0 ] || say "Enter the signature secret, then Ctrl-D:"
    local traced=''
    case $- in *x*) traced=true ;; esac
    { set +x; } 2>/dev/null
    GIVEN=$(cat)
    [[ $GIVEN = *[![:space:]]* ]] || fail "Standard input holds no secret."
    [ -z "$traced" ] || set -x
    YES=true # standard input is used up, so that nobody can answer a question
}

given_secret() {
    { set +x; } 2>/dev/null
    printf '%s\n' "$GIVEN"
}

# The function uses a numbered version, not "latest": instances read a secret when they start, so with "latest" old and
# new instances would use different secrets for a while. A new version number makes a new revision.
ensure_secret() {
    step 4 "the signature secret" "This step needs roles/secretmanager.admin."
    SECRET_LINES=() VERSION=''
    [ -n "$SECRET" ] || return 0
    local secrets
    secrets=$(look secrets list --format='value(name.basename())')
    has "$secrets" "$SECRET" || cloud secrets create "$SECRET" --replication-policy=automatic --format=none
    ensure_accessor
    VERSION=$(newest_version)
    update_secret
    SECRET_LINES=(gcloud secrets versions access "$VERSION" "--secret=$SECRET" "${IN_PROJECT[@]}")
}

ensure_accessor() {
    local bindings member=serviceAccount:$EMAIL role=roles/secretmanager.secretAccessor
    bindings=$(look secrets get-iam-policy "$SECRET" --flatten='bindings[].members' \
        --format='value[separator=" "](bindings.members,bindings.role)')
    has "$bindings" "$member $role" ||
        retry 180 cloud secrets add-iam-policy-binding "$SECRET" "--member=$member" "--role=$role" --format=none
}

newest_version() {
    look secrets versions list "$SECRET" --filter=state=ENABLED --sort-by=~createTime --limit=1 \
        --format='value(name.basename())'
}

update_secret() {
    if [ -n "$SECRET_STDIN" ]; then
        add_version given < <(given_secret)
    elif [ -z "$VERSION" ]; then
        add_version new
    elif [ -n "$ROTATE_SECRET" ]; then
        add_version rotate
    elif [ -n "$RETIRE_SECRET" ]; then
        add_version retire
    fi
}

# The number of the new version is the answer of the request: a list may lack it for a while.
add_version() {
    local command=() made
    case $1 in
    rotate | retire) command=(gcloud secrets versions access "$VERSION" "--secret=$SECRET" "${IN_PROJECT[@]}" '|') ;;
    esac
    command+=("$PYTHON" deploy/secret.py "$1" -- gcloud secrets versions add "$SECRET" --data-file=-
        "${IN_PROJECT[@]}" --quiet "--format=value(name.basename())")
    if [ -n "$DRY_RUN" ]; then
        run "${command[@]}"
        VERSION=$((${VERSION:-0} + 1))
    else
        made=$(execute "${command[@]}")
        VERSION=$made
    fi
}
