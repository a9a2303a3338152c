# Step 8: Firestore's security rules, by the Firebase CLI. Sourced by deploy.sh; see deploy/common.sh.

flags+=" rules"

check_rules() {
    [ -z "$RULES" ] || command -v firebase >/dev/null || refuse "--rules needs the Firebase CLI: install firebase-tools"
}

# Rules belong to the whole database, which may have other clients: they are replaced only on request.
plan_rules() {
    [ -z "$RULES" ] || plan Rules "those of deploy/firestore.rules replace all rules of the database"
}

ensure_rules() {
    local folder=$SCRATCH/firebase
    [ -n "$RULES" ] || return 0
    mkdir -p "$folder"
    sed -e "s|/events/|/$COLLECTION/|" -e "s|/devices/|/${DEVICES:-devices}/|" deploy/firestore.rules \
        >"$folder/firestore.rules"
    printf '{"firestore": {"database": "%s", "rules": "firestore.rules"}}\n' "$DATABASE" >"$folder/firebase.json"
    run firebase deploy --only firestore:rules "--project=$PROJECT" "--config=$folder/firebase.json" --non-interactive
}
