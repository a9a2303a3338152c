# Step 5: indexes and TTL policies. Sourced by deploy.sh; see deploy/common.sh.

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
    background indexes composite create "--collection-group=$group" "${configs[@]}"
}

ensure_exempt() {
    grep -q "^$1 $2 0 " <<<"$fields" ||
        background indexes fields update "$2" "--collection-group=$1" --disable-indexes
}

# Without --retention-days, a policy of another origin stays.
ensure_ttl() {
    local wanted=--disable-ttl now=--disable-ttl
    [ -n "$RETENTION_DAYS" ] || named retention-days || return 0
    [ -z "$RETENTION_DAYS" ] || wanted=--enable-ttl
    ! grep -qE "^$1 expireAt 0 (CREATING|ACTIVE)$" <<<"$fields" || now=--enable-ttl
    [ $wanted = $now ] || background fields ttls update expireAt "--collection-group=$1" $wanted
}

# Field operations on one collection collide while the first one runs. What gcloud says of an operation is not of use.
background() {
    create 600 cloud firestore "$@" "--database=$DATABASE" --async --no-user-output-enabled
    [ -n "$BACKGROUND_SAID" ] || say "Firestore applies these changes in the background, and stores events meanwhile."
    BACKGROUND_SAID=true
}
BACKGROUND_SAID=''
