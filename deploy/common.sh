# Helpers of deploy.sh and of its step files. Sourced by deploy.sh, which runs in the project's directory with
# `set -euo pipefail`. Everything runs on the bash 3.2 of macOS: no associative arrays, no ${name^^}, no mapfile, and an
# array that may be empty is written ${array[@]+"${array[@]}"}.
#
# How to write a step file
#
#   options   Register each option where the file is sourced, with its variable, and describe it in deploy/usage.txt:
#                 flags+=" no-alerts"             NO_ALERTS is '' or true
#                 values+=" alert-channel"        ALERT_CHANNEL is '' or the value; DEPLOY_ALERT_CHANNEL sets it too
#                 lists+=" alert-email"           ALERT_EMAIL has a line for each time that the option is given
#             `named alert-channel` tells whether the option (or DEPLOY_ALERT_CHANNEL) was given in this run.
#             `check_NAME`, called in step 1 before anything is read, refuses wrong values: `must VARIABLE REGEX TEXT`,
#             or `refuse TEXT` (exit status 2). It also checks what else must not fail later, such as credentials.
#   plan      `plan_NAME` prints lines of the plan, before the user is asked: plan "Alerts" "to $ADDRESS". A difference
#             is shown as `plan LABEL "$(difference NOW THEN)"`. PROJECT, REGION, NAME and every setting are known then.
#   look      look run services list --format=…
#             Reads with gcloud in the project; also used with --dry-run. What does not exist (not found; with the first
#             run or --dry-run also: API disabled) prints nothing and is no error. Any other failure, such as a denied
#             permission, ends the script. Use it as `x=$(look …)`, not in a condition or after `local x=`, or bash
#             ignores the failure; in a condition use `exists run services describe NAME …`.
#   run       run COMMAND ARGUMENT … ['|' COMMAND ARGUMENT …]
#             Runs a command or a pipeline; with --dry-run prints it instead, quoted, so that it can be pasted. Each
#             change goes through `run`, and only arrays and arguments go into it: nothing is evaluated. A secret is
#             never an argument or a variable (`bash -x` would print it): it goes through a pipeline.
#   cloud     cloud secrets create "$SECRET" …: `run` of gcloud with --project and --quiet. In a pipeline, or where the
#             command is not first, write gcloud … "${IN_PROJECT[@]}" --quiet.
#   retry     retry SECONDS COMMAND …, for example `retry 180 cloud projects add-iam-policy-binding …`
#             Repeats a command of this file for as long as its error is one that passes by itself: see `is_temporary`.
#             `create` is the same for a command that makes something which a list may lack although it exists.
#   steps     `step NUMBER TITLE ADVICE` at the begin of each of the eight steps; the advice is printed if the step fails.
#             `fail TEXT` ends with exit status 1, `refuse TEXT` with 2: one line that says what to do. `say` prints.
#   removal   `remove_NAME`, called by --remove, takes away what the step makes, by `look` and `run` as well.
#   known     to each step: PROJECT, REGION, NAME, EMAIL (the function's service account), DATABASE, COLLECTION, DEVICES,
#             RETENTION_DAYS, SECRET and VERSION (empty: no secret), from step 6 URL and URL_OPTION; DRY_RUN, YES, FORCE.
#   data      JSON and the like lies in files of deploy/; what must be parsed is parsed by "$PYTHON", a Python 3.8 or
#             newer without packages.

STEP='' TITLE='' ADVICE=''
flags='' values='' lists=''

say() {
    printf '%s\n' "$@" >&2
}

refuse() {
    STEP=''
    say "deploy.sh: $1; see ./deploy.sh --help"
    exit 2
}

fail() {
    say "deploy.sh: ${STEP:+step $STEP of 8 ($TITLE): }$1"
    STEP=''
    exit 1
}

step() {
    STEP=$1 TITLE=$2 ADVICE=$3
    say "" "[$STEP/8] $TITLE"
}

explain_failure() {
    local status=$? what="failed, see the error above"
    rm -rf "${SCRATCH:-}"
    [ $status -ne 0 ] && [ -n "$STEP" ] || exit $status
    [ $status -lt 128 ] || what="was interrupted"
    say "deploy.sh: step $STEP of 8 ($TITLE) $what. $ADVICE Then run the same command again: it skips what is already done."
    exit $((status < 128 ? 1 : status)) # the 2 of another command is no wrong argument of deploy.sh
}

# Tells whether a text has this line.
has() {
    grep -qxF -- "$2" <<<"$1"
}

plan() {
    printf '%-11s %s\n' "$1" "$2" >&2
}

difference() {
    if [ "$1" = "$2" ]; then
        printf %s "${2:-none}"
    else
        printf '%s → %s' "${1:-none}" "${2:-none}"
    fi
}

# --- commands --------------------------------------------------------------------------------------------------------

look() {
    local pause error
    for pause in 1 2 4 8 15 30 30 30 0; do
        gcloud "$@" "${IN_PROJECT[@]}" 2>"$SCRATCH/look" && return
        error=$(cat "$SCRATCH/look")
        ! is_absent "$error" || return 0
        [ -n "$APIS_ENABLED" ] && is_disabled "$error" && [ $pause -gt 0 ] || break
        say "An API is not enabled everywhere yet. Trying again in $pause s …"
        sleep $pause
    done
    say "$error"
    return 1
}
APIS_ENABLED='' # true once this run has enabled APIs: then an API that is still disabled becomes available soon

# exists COMMAND …: tells whether gcloud can describe something.
exists() {
    local found
    found=$(look "$@" --format='value(name,metadata.name)') || exit 1 # bash does not end a script in a condition by itself
    [ -n "$found" ]
}

is_absent() {
    if [ -z "$APIS_ENABLED" ] && is_disabled "$1"; then
        return
    fi
    grep -qE 'NOT_FOUND|was not found|could not be found|Cannot find (service|revision|job)|does not exist|HTTPError 404' <<<"$1"
}

is_disabled() {
    grep -qE 'SERVICE_DISABLED|has not been used in project|is not enabled|not enabled on project' <<<"$1"
}

run() {
    if [ -n "$DRY_RUN" ]; then
        quoted "$@"
    else
        execute "$@"
    fi
}

cloud() {
    run gcloud "$@" "${IN_PROJECT[@]}" --quiet
}

execute() {
    local command=()
    while [ $# -gt 0 ] && [ "$1" != '|' ]; do
        command+=("$1") && shift
    done
    if [ $# -eq 0 ]; then
        "${command[@]}"
    else
        shift
        "${command[@]}" | execute "$@"
    fi
}

# Prints a command for a shell. In --url=$(…) the shell is to replace the command: the function has no URL yet. Likewise
# for each other option.
quoted() {
    local word line=''
    for word in "$@"; do
        case $word in
        '|') line+=' |' ;;
        --*'=$('*) line+=" \"$word\"" ;;
        *\'*) line+=$(printf ' %q' "$word") ;;
        '' | *[!A-Za-z0-9_./:=@,+-]*) line+=" '$word'" ;;
        *) line+=" $word" ;;
        esac
    done
    printf '%s\n' "${line# }"
}

retry() {
    local limit=$((SECONDS + $1)) pause=1
    shift
    until { "$@" 2>&1 >&3 | tee "$SCRATCH/retry" >&2; } 3>&1; do
        is_temporary "$(cat "$SCRATCH/retry")" && [ $SECONDS -lt $limit ] || return 1
        say "Trying again in $pause s …"
        sleep $pause
        pause=$((pause < 15 ? pause * 2 : 30))
    done
}

# create SECONDS COMMAND …: as retry; that something exists already is no error, because a list may lack it for a while.
create() {
    retry "$@" && return
    grep -qE 'ALREADY_EXISTS|already exists' "$SCRATCH/retry" || return 1
    say "It exists already."
}

# Errors that Google asks to retry: an API that was just enabled, a service account or a role that is not known
# everywhere yet, an operation that collides with another one, a quota per minute, a service that is not available.
is_temporary() {
    is_disabled "$1" || grep -qwE '409|429|503|ABORTED|RESOURCE_EXHAUSTED|UNAVAILABLE' <<<"$1" ||
        grep -qE 'does not exist|[Cc]oncurrent|another operation|Cannot find metric|denied on secret' <<<"$1"
}
