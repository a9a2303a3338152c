# Step 4: the signature secret. Sourced by deploy.sh; see deploy/common.sh.
#
# The function uses a numbered version, not "latest": instances read a secret when they start, so with "latest" old and new
# instances would use different secrets. What is in progress is judged by the version of the revision that serves: it is
# the one that DT's deliveries meet. A newer version that is not in use is what an interrupted run has left.

flags+=" secret-stdin rotate-secret retire-secret show-secret"
values+=" secret secret-locations"

RETIRE_AFTER=$((13 * 3600)) # seconds; DT repeats a delivery for 12 hours

# The secret stays out of the trace of `bash -x`.
read_secret() {
    [ -n "$SECRET_STDIN" ] || return 0
    [ ! -t 0 ] || say "Enter the signature secret, then Ctrl-D:"
    local traced=''
    case $- in *x*) traced=true ;; esac
    { set +x; } 2>/dev/null
    GIVEN=$(cat)
    [ -z "$traced" ] || set -x
    STEP=''
    given_secret | "$PYTHON" deploy/secret.py check
    STEP=1
    YES=true # standard input is used up, so that nobody can answer a question
}

given_secret() {
    { set +x; } 2>/dev/null
    printf '%s\n' "$GIVEN"
}

plan_secret() {
    local now=$NOW_SECRET${NOW_VERSION:+, version $NOW_VERSION} then=$SECRET
    [ "$SECRET" != "$NOW_SECRET" ] || then=$now
    [ -n "$NOW_EXISTS" ] || now=$then
    if [ -n "$ROTATE_SECRET" ]; then
        then+=", with a new secret before the present one"
    elif [ -n "$RETIRE_SECRET" ]; then
        then+=", only the first of its two secrets"
    elif [ -n "$SECRET_STDIN" ]; then
        then+=", from standard input"
    fi
    plan Secret "$(difference "$now" "$then")"
}

ensure_secret() {
    step 4 "the signature secret" "This step needs roles/secretmanager.admin."
    SECRET_LINES=() VERSION='' ROTATED=''
    [ -n "$SECRET" ] || return 0
    local labels versions pinned newest
    labels=$(look secrets describe "$SECRET" --format='csv[no-heading](name.basename(),labels.rotated)')
    [ -n "$labels" ] || create_secret
    ROTATED=${labels#*,}
    ensure_accessor "$SECRET" "$EMAIL"
    read_versions
    choose_version
    SECRET_LINES=(gcloud secrets versions access "$VERSION" "--secret=$SECRET" "${IN_PROJECT[@]}")
}

create_secret() {
    local replication=(--replication-policy=automatic)
    [ "$SECRET" != "$NOW_SECRET" ] ||
        fail "The function uses the secret $SECRET, which is not in this project: restore it, or set --secret."
    [ -z "$SECRET_LOCATIONS" ] || replication=(--replication-policy=user-managed "--locations=$SECRET_LOCATIONS")
    create 180 cloud secrets create "$SECRET" "${replication[@]}" --format=none
}

# ensure_accessor SECRET EMAIL: lets a service account read a secret.
ensure_accessor() {
    local bindings member=serviceAccount:$2 role=roles/secretmanager.secretAccessor
    bindings=$(look secrets get-iam-policy "$1" --flatten='bindings[].members' \
        --format='value[separator=" "](bindings.members,bindings.role)')
    has "$bindings" "$member $role" ||
        retry 180 cloud secrets add-iam-policy-binding "$1" "--member=$member" "--role=$role" --format=none
}

# pinned: what the function uses of this secret; newest: the newest version that is enabled. A list may lack what was
# added a moment ago.
read_versions() {
    versions=$(look secrets versions list "$SECRET" --sort-by=~createTime \
        --format='value[separator=" "](name.basename(),state)' | tr A-Z a-z)
    newest=$(sed -n 's/ enabled$//p' <<<"$versions" | sort -rn | head -n 1)
    pinned=''
    [ "$SECRET" != "$NOW_SECRET" ] || pinned=$NOW_VERSION
    [ "$pinned" != latest ] || pinned=$newest
    [ "${newest:-0}" -ge "${pinned:-0}" ] || newest=$pinned
    [ -z "$pinned" ] || ! grep -qE "^$pinned (disabled|destroyed)$" <<<"$versions" || [ -n "$SECRET_STDIN$FORCE" ] ||
        fail "The function uses version $pinned of $SECRET, which is disabled: gcloud secrets versions enable $pinned \
--secret=$SECRET --project=$PROJECT"
}

choose_version() {
    VERSION=$pinned
    if [ -n "$SECRET_STDIN" ]; then
        use_given
    elif [ -z "$pinned" ]; then
        use_other
    elif [ -n "$ROTATE_SECRET" ]; then
        rotate_secret
    elif [ -n "$RETIRE_SECRET" ]; then
        retire_secret
    elif [ "$newest" != "$pinned" ]; then
        say "The function uses version $pinned of $SECRET; the newer version $newest is not in use. It was left by another \
run: repeat that one (--rotate-secret, --retire-secret or --secret-stdin) to use it."
    fi
}

# relation OF_SECRET VERSION [OTHER_VERSION]: without the other version, of the given secret; without OF_SECRET, to the
# one in a plain variable of the function.
relation() {
    local first=(gcloud secrets versions access "$2" "--secret=$1" "${IN_PROJECT[@]}")
    [ -n "$1" ] || first=("$PYTHON" deploy/state.py --secret "${STATE_FILES[@]}")
    {
        "${first[@]}" &&
            printf '\0' &&
            if [ -n "${3:-}" ]; then
                gcloud secrets versions access "$3" "--secret=$SECRET" "${IN_PROJECT[@]}"
            else
                given_secret
            fi
    } | "$PYTHON" deploy/secret.py compare
}

use_given() {
    local related=extends
    if [ -n "$NOW_SECRET$NOW_PLAIN_SECRET" ]; then
        related=$(relation "$NOW_SECRET" "$NOW_VERSION") || related=unknown
    fi
    case $related$FORCE in
    drops | retired) refuse_drop "Add it to standard input, below the new one" ;;
    unknown) fail "$(present_secret) cannot be read, so that it is not known whether the new value has all its secrets. \
Enable or restore it; or use --force if no Data Connector signs with it." ;;
    esac
    if [ "$related" = same ] && [ -n "$pinned" ]; then
        return
    elif [ -n "$newest" ] && [ "$newest" != "$pinned" ] && [ "$(relation "$SECRET" "$newest")" = same ]; then
        VERSION=$newest
    else
        add_version given
    fi
}

refuse_drop() {
    fail "$(present_secret) has a secret that the new value lacks, and DT's deliveries with it would be refused. $1; or \
use --force if no Data Connector signs with it any more."
}

present_secret() {
    if [ -n "$NOW_SECRET" ]; then
        printf %s "Version $NOW_VERSION of $NOW_SECRET, which the function uses,"
    else
        printf %s "What is in a plain variable of the function"
    fi
}

# The first deployment, or another secret than the present one.
use_other() {
    local related=drops
    VERSION=$newest
    if [ -n "$NOW_SECRET" ] && [ -z "$FORCE" ]; then
        [ -z "$newest" ] || related=$(relation "$NOW_SECRET" "$NOW_VERSION" "$newest")
        case $related in drops | retired) refuse_drop "Add it to the secret $SECRET, or use --secret-stdin" ;; esac
    fi
    [ -n "$VERSION" ] || add_version new
}

rotate_secret() {
    local count related=same
    count=$(count_lines "$pinned")
    [ "$newest" = "$pinned" ] || related=$(relation "$SECRET" "$pinned" "$newest")
    if [ "$related" = rotated ]; then
        VERSION=$newest
    elif [ "$count" -eq 1 ]; then
        add_version rotate
    elif [ "$count" -eq 2 ] && is_rotation; then
        say "Version $pinned of $SECRET accepts the old and the new secret already."
    else
        fail "Version $pinned of $SECRET has $count secrets that --rotate-secret has not made: for several Data Connectors, \
--secret-stdin sets them all."
    fi
}

# Two secrets may also belong to two Data Connectors: then none of them is an old one.
is_rotation() {
    local before
    [ "${ROTATED%%-*}" != "$pinned" ] || return 0
    before=$(sed -n 's/ enabled$//p' <<<"$versions" | sort -rn | awk -v pinned="$pinned" '$1 < pinned' | sed -n 1p)
    [ -n "$before" ] && [ "$(relation "$SECRET" "$before" "$pinned")" = rotated ]
}

retire_secret() {
    local count related=same
    count=$(count_lines "$pinned")
    [ "$newest" = "$pinned" ] || related=$(relation "$SECRET" "$pinned" "$newest")
    [ "$related" != rotated ] || [ "$count" -ne 1 ] ||
        fail "The rotation was interrupted before the function used version $newest: run --rotate-secret again first."
    if [ "$count" -eq 1 ]; then
        say "Version $pinned of $SECRET has one secret: there is none to retire."
        return
    fi
    [ "$count" -eq 2 ] || fail "Version $pinned of $SECRET has $count secrets: --secret-stdin sets them all."
    check_retirement
    if [ "$related" = retired ]; then VERSION=$newest; else add_version retire; fi
}

# The label says which version has been in use with two secrets, and since when: VERSION-SECONDS.
check_retirement() {
    local since=0 age
    [ -z "$FORCE" ] || return 0
    [ "${ROTATED%%-*}" != "$pinned" ] || since=${ROTATED#*-}
    [ "$since" -gt 0 ] ||
        fail "Since when the function accepts both secrets is not known: run --rotate-secret again, then wait 13 hours. \
--force retires the old secret at once; only do so if no Data Connector signs with it."
    age=$(($(date +%s) - since))
    [ $age -ge $RETIRE_AFTER ] ||
        fail "The function accepts both secrets for $((age / 3600)) hours, and DT repeats deliveries signed with the old one \
for 12: run again in $(((RETIRE_AFTER - age) / 3600 + 1)) hours. --force retires the old secret at once."
}

# After the smoke test: from now on the 13 hours count. They count anew if this run has changed the version in use.
mark_rotation() {
    [ -n "$ROTATE_SECRET" ] || return 0
    [ "${ROTATED%%-*}" = "$VERSION" ] && [ "$NOW_VERSION" = "$VERSION" ] ||
        cloud secrets update "$SECRET" "--update-labels=rotated=$VERSION-$(date +%s)" --format=none
}

count_lines() {
    gcloud secrets versions access "$1" "--secret=$SECRET" "${IN_PROJECT[@]}" | grep -c '[^[:space:]]'
}

# The number of the new version is the answer of the request.
add_version() {
    local command=() made
    case $1 in
    rotate | retire) command=(gcloud secrets versions access "$VERSION" "--secret=$SECRET" "${IN_PROJECT[@]}" '|') ;;
    esac
    command+=("$PYTHON" deploy/secret.py "$1" -- gcloud secrets versions add "$SECRET" --data-file=-
        "${IN_PROJECT[@]}" --quiet "--format=value(name.basename())")
    if [ -n "$DRY_RUN" ]; then
        run "${command[@]}"
        VERSION=$((${newest:-0} + 1))
    elif [ "$1" = given ]; then
        VERSION=$(given_secret | "${command[@]}")
    else
        made=$(execute "${command[@]}")
        VERSION=$made
    fi
}
