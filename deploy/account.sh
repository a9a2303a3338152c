# Step 3: the service accounts of the function and of its build. Sourced by deploy.sh; see deploy/common.sh.

values+=" account build-service-account"

# The function only creates documents, for which one permission is enough; for devices it also reads and updates.
# roles/datastore.user would also allow it to read, change and delete every document of every database.
ROLE=dataconnectorEventCreator
STORES="Stores Data Connector events" # display names of the accounts that deploy.sh makes
BUILDS="Builds the Data Connector endpoint"
DEVICE_PERMISSIONS=datastore.entities.create,datastore.entities.get,datastore.entities.update

# What a build reads and writes: its source, its image and its log. The first of these roles holds all three.
BUILD_ROLES="roles/storage.objectViewer roles/artifactregistry.writer roles/logging.logWriter"
ALL_BUILD_ROLES="roles/cloudbuild.builds.builder roles/editor roles/owner"

ensure_account() {
    step 3 "the service accounts" "This step needs roles/iam.serviceAccountAdmin, roles/iam.roleAdmin and \
roles/resourcemanager.projectIamAdmin."
    local accounts bindings permissions=datastore.entities.create
    [ -z "$DEVICES" ] || permissions=$DEVICE_PERMISSIONS
    accounts=$(look iam service-accounts list --format='value(email)')
    bindings=$(look projects get-iam-policy "$PROJECT" --flatten='bindings[].members' \
        --format='value[separator=" "](bindings.members,bindings.role,bindings.condition.expression)')
    create_account "$EMAIL" "$STORES"
    ensure_role "$permissions"
    bind "$EMAIL" "projects/$PROJECT/roles/$ROLE" "resource.name==\"projects/$PROJECT/databases/$DATABASE\""
    ensure_build_account
}

# An account of another project is not made here.
create_account() {
    has "$accounts" "$1" || [ "$1" != "$(account_email "${1%%@*}")" ] ||
        create 60 cloud iam service-accounts create "${1%%@*}" "--display-name=$2" --format=none
}

# Permissions that the present revision still needs stay until the next one serves: see narrow_role.
ensure_role() {
    local role present
    role=$(look iam roles describe "$ROLE" --format='csv[no-heading](name.basename(),deleted,includedPermissions)')
    case $role in
    '')
        cloud iam roles create $ROLE "--title=Data Connector event creator" "--permissions=$1" --stage=GA --format=none
        return ;;
    "$ROLE,True,"*) cloud iam roles undelete $ROLE --format=none ;;
    esac
    present=$(tr ';' '\n' <<<"${role##*,}" | sort | paste -sd , -)
    [ "$present" = "$1" ] || [ "$present" = "$DEVICE_PERMISSIONS" ] ||
        cloud iam roles update $ROLE "--permissions=$1" --format=none
    WIDE_ROLE=''
    [ "$present" = "$1" ] || [ "$present" != "$DEVICE_PERMISSIONS" ] || is_shared || WIDE_ROLE=true
}
WIDE_ROLE=''

# The role belongs to the project: the functions of other accounts, and other functions of this one, may need what this
# one does not.
is_shared() {
    local users
    ! grep -F " projects/$PROJECT/roles/$ROLE" <<<"$bindings" | grep -qvF "serviceAccount:$EMAIL " || return 0
    users=$(users_of_account) || exit 1 # bash does not end a script in a condition by itself
    [ -n "$users" ]
}

# Prints the other functions and Cloud Run services of the account, in all regions.
users_of_account() {
    local functions services
    functions=$(look functions list --v2 --format='value[separator=" "](name.basename(),name.segment(3),'\
'serviceConfig.serviceAccountEmail)') || return 1
    services=$(look run services list \
        --format='value[separator=" "](metadata.name,region,spec.template.spec.serviceAccountName)') || return 1
    grep " $EMAIL$" <<<"$functions"$'\n'"$services" | grep -v "^$NAME $REGION " || true
}

# After the new revision has answered: without devices it creates documents only.
narrow_role() {
    [ -z "$WIDE_ROLE" ] || cloud iam roles update $ROLE --permissions=datastore.entities.create --format=none
}

# bind EMAIL ROLE [CONDITION]
bind() {
    local member=serviceAccount:$1 condition=None
    [ -z "${3:-}" ] || condition="^;^expression=$3;title=only $DATABASE"
    has "$bindings" "$member $2 ${3:-}" || has "$bindings" "$member $2${3:+ $3}" ||
        retry 180 cloud projects add-iam-policy-binding "$PROJECT" "--member=$member" "--role=$2" \
            "--condition=$condition" --format=none
}

# New projects give the default build account no role, and a build says so after minutes. A function that was built
# keeps its account; gcloud would keep that of the last deployment, even if that failed or was rolled back.
ensure_build_account() {
    local role member
    BUILD_EMAIL=$(account_email "$BUILD_SERVICE_ACCOUNT")
    if [ -z "$BUILD_EMAIL" ] && [ -n "$NOW_EXISTS" ]; then
        [ "$NOW_TRAFFIC/$NOW_STATE" = newest/ACTIVE ] || BUILD_EMAIL=$NOW_BUILD_SERVICE_ACCOUNT
        return
    fi
    BUILD_EMAIL=${BUILD_EMAIL:-$(account_email dataconnector-build)}
    member=serviceAccount:$BUILD_EMAIL
    create_account "$BUILD_EMAIL" "$BUILDS"
    for role in $ALL_BUILD_ROLES; do
        ! grep -qE "^$member $role ?$" <<<"$bindings" || return 0
    done
    for role in $BUILD_ROLES; do
        bind "$BUILD_EMAIL" "$role"
    done
}
