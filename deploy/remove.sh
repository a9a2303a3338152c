# --remove: takes away what deploy.sh has made. Sourced by deploy.sh; see deploy/common.sh.

flags+=" remove with-events"

# The Data Connector first: what it delivers to an endpoint that is gone is lost after 12 hours. Once the function is gone,
# its settings are not known any more: the advice names them.
remove() {
    local functions users bindings
    EMAIL=$(account_email "${ACCOUNT:-${NOW_EMAIL:-dataconnector-endpoint}}")
    SECRET=${SECRET:-${NOW_SECRET:-dt-signature-secret}} DEVICES=${DEVICES:-$NOW_DEVICES}
    DATABASE=${DATABASE:-${NOW_DATABASE:-(default)}} COLLECTION=${COLLECTION:-${NOW_COLLECTION:-events}}
    TITLE=removal ADVICE="It needs the role Owner or Editor of the project. Add $(quoted "--account=${EMAIL%%@*}" \
        "--secret=$SECRET" "--database=$DATABASE" "--collection=$COLLECTION" ${DEVICES:+"--devices=$DEVICES"})."
    plan_removal
    [ -n "$YES$DRY_RUN" ] || ask "Remove them?"
    URL=$NOW_URL URL_OPTION=--url=$NOW_URL SECRET_LINES=() VERSION=$NOW_VERSION
    disconnect
    remove_repair
    remove_monitoring
    remove_function
    remove_secret
    remove_account
    remove_sources
    [ -z "$WITH_EVENTS" ] || remove_events
    say "Removed."
}

plan_removal() {
    plan Project "$PROJECT"
    plan Region "$REGION"
    plan Remove "the function $NAME, its metric, its rights, and what no other function uses of:"
    plan "" "the secret ${SECRET:-(none)}, the service account $EMAIL, the role $ROLE, images and sources of builds"
    if [ -n "$WITH_EVENTS" ]; then
        plan "" "and ALL DOCUMENTS of ${COLLECTION}, ${COLLECTION}_quarantine${DEVICES:+ and $DEVICES} in $DATABASE"
    else
        plan Keep "the database $DATABASE and its documents"
    fi
    [ -n "$CONNECT_DT_PROJECT" ] ||
        plan Note "disable its Data Connector in DT Studio first, or set --connect-dt-project"
}

remove_function() {
    [ -z "$NOW_EXISTS" ] || retry 180 cloud functions delete "$NAME" --gen2 "--region=$REGION" --format=none
    REQUEST_LOG=true NO_REQUEST_LOG=''
    ensure_request_log
    functions=$(look functions list --v2 \
        --format='value[separator=" "](name.basename(),name.segment(3),serviceConfig.serviceAccountEmail)')
    functions=$(grep -v "^$NAME $REGION " <<<"$functions" || true)
    users=$(users_of_account)
}

# A secret that other accounts may read belongs to another function too.
remove_secret() {
    local readers
    [ -n "$SECRET" ] || return 0
    readers=$(look secrets get-iam-policy "$SECRET" --flatten='bindings[].members' --format='value(bindings.members)')
    readers=$(grep -vxF "serviceAccount:$EMAIL" <<<"$readers" | tr -d '\n' || true)
    if [ -n "$readers$users" ]; then
        say "The secret $SECRET stays: other accounts, functions or services may use it."
    elif exists secrets describe "$SECRET"; then
        cloud secrets delete "$SECRET"
    fi
}

remove_account() {
    local role=projects/$PROJECT/roles/$ROLE accounts roles
    roles=$(look iam roles list --format='value(name.basename())')
    accounts=$(look iam service-accounts list --format='value[separator=" "](email,displayName)')
    bindings=$(look projects get-iam-policy "$PROJECT" --flatten='bindings[].members' \
        --format='value[separator=" "](bindings.members,bindings.role)')
    if [ -n "$users" ]; then
        say "The service account $EMAIL stays: another function or service uses it."
        return
    fi
    remove_member "$EMAIL" "$STORES"
    remove_role "$ROLE" "$EMAIL"
    [ -n "$functions" ] || remove_member "$(account_email dataconnector-build)" "$BUILDS"
}

# remove_role ROLE EMAIL: deletes a role of the project, unless another account has it.
remove_role() {
    grep " projects/$PROJECT/roles/$1$" <<<"$bindings" | grep -qv "^serviceAccount:$2 " ||
        ! has "$roles" "$1" || cloud iam roles delete "$1" --format=none
}

# remove_member EMAIL DISPLAY_NAME: takes away an account that deploy.sh has made, and its roles in the project. Of any
# other account, such as the default one of the project, only the role of this function.
remove_member() {
    local member bound made=''
    ! has "$accounts" "$1 $2" || made=true
    while read -r -u 3 member bound; do
        if [ "$member" = "serviceAccount:$1" ] && { [ -n "$made" ] || [ "$bound" = "$role" ]; }; then
            cloud projects remove-iam-policy-binding "$PROJECT" "--member=$member" "--role=$bound" --all --format=none
        fi
    done 3<<<"$(sort -u <<<"$bindings")"
    [ -z "$made" ] || cloud iam service-accounts delete "$1"
}

# Images and sources of all functions of a region are in one repository and two buckets.
remove_sources() {
    local number bucket
    ! grep -q "^[^ ]* $REGION " <<<"$functions" || return 0
    ! exists artifacts repositories describe gcf-artifacts "--location=$REGION" ||
        cloud artifacts repositories delete gcf-artifacts "--location=$REGION" --format=none
    number=$(look projects describe "$PROJECT" --format='value(projectNumber)')
    for bucket in "gcf-v2-sources-$number-$REGION" "gcf-v2-uploads-$number-$REGION"; do
        ! exists storage buckets describe "gs://$bucket" || cloud storage rm --recursive "gs://$bucket"
    done
}

remove_events() {
    retry 180 cloud firestore bulk-delete "--database=$DATABASE" --async --format=none \
        "--collection-ids=$COLLECTION,${COLLECTION}_quarantine${DEVICES:+,$DEVICES}"
}
