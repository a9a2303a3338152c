# Step 8: log-based metrics, dashboard, notification channels and alert policies. Sourced by deploy.sh; see
# deploy/common.sh.
#
# Google returns policies and dashboards in a form of its own, so that they cannot be compared with their files. Each one
# carries a digest of its file instead: a change by hand stays until the file changes.

APIS+=" monitoring"
lists+=" alert-email alert-channel"
METRICS="outcomes lag refusals" # the files in deploy/metrics/
METRIC_SECONDS=${METRIC_SECONDS:-600} # for which Google may not know a new metric

check_monitoring() {
    must ALERT_EMAIL 'none[[:space:]]+|([^[:space:],@]+@[^[:space:],@]+[[:space:]]+)+' "an e-mail address, or none"
    must ALERT_CHANNEL '((projects/[^[:space:],/]+/notificationChannels/)?[0-9]+[[:space:]]+)+' \
        "the name of a notification channel: projects/PROJECT/notificationChannels/NUMBER"
}

plan_monitoring() {
    [ -z "$ALERT_EMAIL$ALERT_CHANNEL" ] || plan Alerts "to $(tr '\n' ' ' <<<"$ALERT_EMAIL$ALERT_CHANNEL")"
}

ensure_monitoring() {
    local metric advice=$ADVICE
    ADVICE+=" Metrics, dashboard and alerts need roles/logging.configWriter and roles/monitoring.editor."
    RENDER=(-e "s/FUNCTION/$NAME/g" -e "s/PROJECT/$PROJECT/g" -e "s/REGION/$REGION/g" -e "s/DATABASE/$DATABASE/g")
    for metric in $METRICS; do
        ensure_log_metric "$metric"
    done
    ensure_dashboard
    if [ "$ALERT_EMAIL" = $'none\n' ]; then
        remove_policies
    elif [ -n "$ALERT_EMAIL$ALERT_CHANNEL" ]; then
        ensure_policies deploy/alerts/*.yaml
    fi
    ADVICE=$advice
}

ensure_log_metric() {
    local file=deploy/metrics/$1.json wanted present change=create
    wanted=$(sed -n "${RENDER[@]}" -e 's/^  "filter": "\(.*\)",$/\1/p' "$file")
    present=$(look logging metrics describe "$NAME-$1" --format='value(filter)')
    [ "$present" != "$wanted" ] || return 0
    [ -z "$present" ] || change=update
    retry 180 run sed "${RENDER[@]}" "$file" '|' gcloud logging metrics $change "$NAME-$1" --config-from-file=- \
        "${IN_PROJECT[@]}" --quiet --format=none
}

fingerprint() {
    sed "${RENDER[@]}" "$1" | openssl dgst -sha256 -r | cut -c 1-40
}

# --- the dashboard ---------------------------------------------------------------------------------------------------

ensure_dashboard() {
    local digest present etag
    digest=$(fingerprint deploy/dashboard.json)
    present=$(look monitoring dashboards describe "$NAME" --format=json)
    case $present in
    *"($digest)"*) ;;
    '') change_dashboard create ;;
    *)
        etag=$(sed -n 's/^  "etag": "\(.*\)",*$/\1/p' <<<"$present")
        change_dashboard update -e "1s|{|{\"etag\": \"$etag\",|" ;;
    esac
}

change_dashboard() {
    local command=("$1")
    [ "$1" = create ] || command+=("$NAME")
    shift
    retry 180 run sed "${RENDER[@]}" -e "s/DIGEST/$digest/" "$@" deploy/dashboard.json '|' \
        gcloud monitoring dashboards "${command[@]}" --config-from-file=- "${IN_PROJECT[@]}" --quiet --format=none
}

report_monitoring() {
    printf '%s\n' "Dashboard: https://console.cloud.google.com/monitoring/dashboards/builder/$NAME?project=$PROJECT"
    [ -n "$ALERT_EMAIL$ALERT_CHANNEL" ] ||
        printf '%s\n' "To be notified of failures and of silence, if you are not yet: ./deploy.sh --alert-email ADDRESS"
}

# --- alert policies --------------------------------------------------------------------------------------------------

# Sets FOUND to the command for a group of `gcloud monitoring`, in the release track that this gcloud has it in.
find_group() {
    local track
    for track in '' beta alpha; do
        # shellcheck disable=SC2206  # no word if the track is empty
        FOUND=($track monitoring "$1")
        ! gcloud "${FOUND[@]}" --help >/dev/null 2>&1 || return 0
    done
    return 1
}

require_group() {
    find_group "$1" || fail "This gcloud has no \"gcloud monitoring $1\". Update it: gcloud components update && gcloud \
components install alpha beta ."
}

# Makes or updates the policies in these files. Without an option for channels, a new one gets those of a present one.
ensure_policies() {
    local channels='' present file
    if [ -n "$ALERT_EMAIL$ALERT_CHANNEL" ]; then
        require_group channels
        ensure_channels
    fi
    require_group policies
    present=$(policies)
    [ -n "$channels" ] || channels=$(head -n 1 <<<"$present" | cut -d ';' -f 6)
    for file in "$@"; do
        ensure_policy "$file" "$(basename "$file" .yaml)"
    done
}

# Prints a line for each policy of this function: function;alert;digest;enabled;name;channels
policies() {
    local all
    all=$(look "${FOUND[@]}" list --format='csv[no-heading,separator=";"](userLabels.function,userLabels.alert,'\
'userLabels.digest,enabled,name,notificationChannels.list())') || return 1
    grep "^$NAME;" <<<"$all" || true
}

ensure_policy() {
    local digest deployed enabled policy now state=--enabled
    digest=$(fingerprint "$1")
    IFS=';' read -r _ _ deployed enabled policy now <<<"$(grep "^$NAME;$2;" <<<"$present" || true)"
    [ "$enabled" != False ] || state=--no-enabled # as it is
    if [ -z "$policy" ]; then
        change_policy "$1" create "--notification-channels=$channels"
    elif [ "$deployed" != "$digest" ] || [ "$(numbers "$now")" != "$(numbers "$channels")" ]; then
        change_policy "$1" update "$policy" "--set-notification-channels=$channels" $state
    fi
}

# A policy on a new metric is refused for a while.
change_policy() {
    local file=$1
    shift
    retry "$METRIC_SECONDS" run sed "${RENDER[@]}" -e "s/DIGEST/$digest/" "$file" '|' \
        gcloud "${FOUND[@]}" "$@" --policy-from-file=- "${IN_PROJECT[@]}" --quiet --format=none
}

# Prints the numbers of notification channels in a comparable form.
numbers() {
    tr ',' '\n' <<<"$1" | sed 's|.*/||' | sort -u
}

# --- notification channels -------------------------------------------------------------------------------------------

# Sets channels to the names of all channels, separated by commas; makes those for addresses that have none.
ensure_channels() {
    local each present channel
    present=$(look "${FOUND[@]}" list --format='value[separator=" "](type,labels.email_address,name)')
    for each in $ALERT_CHANNEL; do
        channels+=,projects/$PROJECT/notificationChannels/${each##*/}
    done
    for each in $ALERT_EMAIL; do
        channel=$(grep -iF -m 1 "email $each " <<<"$present" | cut -d ' ' -f 3 || true)
        [ -n "$channel" ] || make_channel "$each"
        channels+=,$channel
    done
    channels=${channels#,}
}

# Sets channel; with --dry-run to a command that prints it.
make_channel() {
    local create=("${FOUND[@]}" create "--display-name=$1" --type=email "--channel-labels=email_address=$1"
        "--format=value(name)")
    if [ -n "$DRY_RUN" ]; then
        cloud "${create[@]}"
        channel="\$($(quoted gcloud "${FOUND[@]}" list "--filter=labels.email_address=$1" "--format=value(name)" \
            "${IN_PROJECT[@]}"))"
    else
        channel=$(retry 180 cloud "${create[@]}")
    fi
}

# --- removal ---------------------------------------------------------------------------------------------------------

# With --remove. A notification channel stays: other policies may use it.
remove_monitoring() {
    local metric
    remove_policies
    ! exists monitoring dashboards describe "$NAME" || cloud monitoring dashboards delete "$NAME"
    for metric in $METRICS; do
        ! exists logging metrics describe "$NAME-$metric" || cloud logging metrics delete "$NAME-$metric"
    done
}

# remove_policies [PATTERN]: the policies of this function, or those whose alert matches a pattern of the shell.
remove_policies() {
    local present alert policy
    find_group policies || return 0
    present=$(policies)
    while IFS=';' read -r -u 3 _ alert _ _ policy _; do
        # shellcheck disable=SC2254  # a pattern
        case $alert in ${1:-?*}) cloud "${FOUND[@]}" delete "$policy" ;; esac
    done 3<<<"$present"
}
