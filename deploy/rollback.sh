# --rollback: the revision that served before the present one. Sourced by deploy.sh; see deploy/common.sh.

flags+=" rollback"

roll_back() {
    TITLE=rollback ADVICE="It needs roles/run.developer."
    local revision='' serving=$NOW_REVISION secret=$NOW_SECRET version=$NOW_VERSION organization=$NOW_ORGANIZATION_ID
    [ -n "$NOW_REVISION" ] || fail "There is no function $NAME in $REGION."
    if [ "$NOW_TRAFFIC" != newest ] && [ -z "$FORCE" ]; then
        say "Deliveries go to $serving already, which is not the newest revision; --force goes one further back."
        revision=$serving
        test_rollback
        return
    fi
    find_revision
    [ -n "$revision" ] || fail "There is no revision before $serving that can serve."
    [ -n "$FORCE" ] || check_rollback
    plan Traffic "$serving → $revision"
    [ -n "$YES$DRY_RUN" ] || ask "Continue?"
    cloud run services update-traffic "$NAME" "--region=$REGION" "--to-revisions=$revision=100" --format=none
    say "Another run of deploy.sh deploys a new revision, with the settings of this one."
    test_rollback
}

# It served before, but nothing tells whether it did well.
test_rollback() {
    NOW_REVISION=$revision DEPLOYED='' URL=$NOW_URL URL_OPTION=--url=$NOW_URL SECRET=$NOW_SECRET VERSION=$NOW_VERSION
    DATABASE=$NOW_DATABASE COLLECTION=$NOW_COLLECTION
    smoke_test
}

# Each revision names the one that served before it, so that one which failed the smoke test is passed over: the revision
# that came after it names the one before it. A revision of an older version of deploy.sh names none; then the next older
# one counts. Leaves the settings of the revision that is found in NOW_…
find_revision() {
    local revisions each found='' before=$NOW_PREVIOUS
    revisions=$(look run revisions list "--service=$NAME" "--region=$REGION" --sort-by=~metadata.creationTimestamp \
        --format='value(metadata.name)')
    for each in $revisions; do
        has "$revisions" "$before" || before='' # it was deleted
        if [ -n "$found" ] && [ "${before:-$each}" = "$each" ]; then
            look run revisions describe "$each" "--region=$REGION" --format=json >"$SCRATCH/revision.json"
            assign_state "$SCRATCH/service.json" "$SCRATCH/revision.json"
            [ "$NOW_READY" != True ] || { revision=$each && return; }
            before=$NOW_PREVIOUS
        fi
        [ "$each" != "$serving" ] || found=true
    done
}

# What the present revision accepts must not be refused by the one before.
check_rollback() {
    local related=same each
    for each in ${organization//,/ }; do
        has_word "${NOW_ORGANIZATION_ID//,/ }" "$each" ||
            fail "$revision does not trust the organization $each: use --force if no Data Connector relies on that."
    done
    [ -n "$secret" ] && [ "$secret:$version" != "$NOW_SECRET:$NOW_VERSION" ] || return 0
    SECRET=$NOW_SECRET
    [ -z "$SECRET" ] || related=$(relation "$secret" "$version" "$NOW_VERSION")
    case $SECRET/$related in
    /* | */drops | */retired) fail "$revision lacks a secret that $serving accepts, and DT's deliveries with it would be \
refused: use --force if no Data Connector signs with it." ;;
    esac
}
