# Step 3: the service account and its role. Sourced by deploy.sh; see deploy/common.sh.

# The function only creates documents, for which one permission is enough; for devices it also reads and updates.
# roles/datastore.user would also allow it to read, change and delete every document of every database.
ROLE=dataconnectorEventCreator

ensure_account() {
    step 3 "the service account" "This step needs roles/iam.serviceAccountAdmin, roles/iam.roleAdmin and \
roles/resourcemanager.projectIamAdmin."
    local accounts permissions=datastore.entities.create
    permissions+=${DEVICES:+,datastore.entities.get,datastore.entities.update}
    accounts=$(look iam service-accounts list --format='value(email)')
    has "$accounts" "$EMAIL" ||
        cloud iam service-accounts create "$ACCOUNT" "--display-name=Stores Data Connector events"
    ensure_role "$permissions"
    ensure_binding
}

ensure_role() {
    local role present
    role=$(look iam roles list --show-deleted --format='csv[no-heading](name.basename(),deleted)')
    if has "$role" "$ROLE,True"; then
        cloud iam roles undelete $ROLE --format=none
    elif ! has "$role" "$ROLE,"; then
        cloud iam roles create $ROLE "--title=Data Connector event creator" "--permissions=$1" --stage=GA --format=none
        return
    fi
    present=$(look iam roles describe "$ROLE" --format='value[delimiter=","](includedPermissions)')
    [ "$present" = "$1" ] || cloud iam roles update $ROLE "--permissions=$1" --format=none
}

ensure_binding() {
    local bindings member=serviceAccount:$EMAIL role=projects/$PROJECT/roles/$ROLE
    local condition="resource.name==\"projects/$PROJECT/databases/$DATABASE\""
    bindings=$(look projects get-iam-policy "$PROJECT" --flatten='bindings[].members' \
        --format='value[separator=" "](bindings.members,bindings.role,bindings.condition.expression)')
    has "$bindings" "$member $role $condition" ||
        retry 180 cloud projects add-iam-policy-binding "$PROJECT" "--member=$member" "--role=$role" \
            "--condition=^;^expression=$condition;title=only $DATABASE" --format=none
}
