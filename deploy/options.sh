# The options of deploy.sh. Sourced by deploy.sh; see deploy/common.sh.

flags+=" yes dry-run"
values+=" project region name collection devices organization-id retention-days leeway log-level"
lists+=" index"

NAMED='' # the options of this run
GCLOUD_FLAGS=()

read_options() {
    local name
    for name in $flags $values $lists; do
        read_environment "$name"
    done
    while [ $# -gt 0 ]; do
        case $1 in
        --help | -h) cat deploy/usage.txt && exit 0 ;;
        --) shift && GCLOUD_FLAGS=("$@") && break ;;
        --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
        --*) read_option "$@" && shift "$USED" ;;
        *) refuse "$1 is not an option" ;;
        esac
    done
}

# DEPLOY_MEMORY=1Gi is --memory 1Gi. A flag has no variable, so that --yes is always on the command line.
read_environment() {
    local given
    given=DEPLOY_$(variable "$1")
    printf -v "$(variable "$1")" %s ''
    if ! has_word "$flags" "$1" && [ -n "${!given:-}" ]; then
        read_option "--$1" "${!given}"
    fi
}

read_option() {
    local name=${1#--} target
    target=$(variable "$name")
    NAMED+=" $name" USED=1
    if has_word "$flags" "$name"; then
        printf -v "$target" true
        return
    fi
    has_word "$values $lists" "$name" || refuse "$1 is not an option"
    [ -n "${2:-}" ] || refuse "$1 needs a value"
    USED=2
    if has_word "$lists" "$name"; then
        printf -v "$target" '%s%s\n' "${!target}" "$2"
    else
        printf -v "$target" %s "$2"
    fi
}

variable() {
    printf %s "$1" | tr 'a-z-' 'A-Z_'
}

has_word() {
    case " $1 " in
    *" $2 "*) return 0 ;;
    *) return 1 ;;
    esac
}

named() {
    has_word "$NAMED" "$1"
}

# must VARIABLE REGEX TEXT: refuses the value of an option that was given but does not match.
must() {
    [ -z "${!1}" ] || [[ ${!1} =~ ^($2)$ ]] || refuse "--$(printf %s "$1" | tr 'A-Z_' 'a-z-') must be $3"
}

check_options() {
    NAME=${NAME:-dataconnector-endpoint}
    check_data_options
    check_function_options
    must SECRET '[A-Za-z0-9_-]{1,255}' "letters, digits, - and _"
    must SECRET_LOCATIONS '[a-z0-9-]+(,[a-z0-9-]+)*' "regions, separated by commas"
    must ACCOUNT '[a-z][a-z0-9-]{4,28}[a-z0-9]' "6 to 30 lower-case letters, digits and -"
    must BUILD_SERVICE_ACCOUNT '[a-z][a-z0-9-]{4,28}[a-z0-9](@[a-z0-9.-]+)?' "the name or the address of an account"
    case $SECRET_STDIN$ROTATE_SECRET$RETIRE_SECRET in
    truetrue*) refuse "--secret-stdin, --rotate-secret and --retire-secret exclude each other" ;;
    esac
    [ -z "$RETIRE_SECRET" ] || [ -z "$CONNECT_DT_PROJECT" ] ||
        refuse "--retire-secret and --connect-dt-project exclude each other: the Data Connector must sign with the new \
secret for 13 hours before the old one is removed"
    [ "$ROLLBACK$REMOVE" != truetrue ] || refuse "--rollback and --remove exclude each other"
    [ -z "$WITH_EVENTS" ] || [ -n "$REMOVE" ] || refuse "--with-events needs --remove"
    [ -z "$NO_REQUEST_LOG" ] || [ -z "$REQUEST_LOG" ] || refuse "--no-request-log and --request-log exclude each other"
    check_rules
    check_connect
    check_monitoring
    check_repair
}

check_data_options() {
    must DATABASE '\(default\)|[a-z][a-z0-9-]{2,61}[a-z0-9]' "a database id"
    must LOCATION '[a-z]+[0-9]|[a-z]+-[a-z]+[0-9]+' "a location such as eur3 or europe-west1"
    must COLLECTION '[A-Za-z0-9][A-Za-z0-9_-]{0,99}' "letters, digits, - and _"
    must DEVICES '[A-Za-z0-9][A-Za-z0-9_-]{0,99}' "letters, digits, - and _, or none"
    must INDEX '(labels\.[A-Za-z_][A-Za-z0-9_]*[[:space:]]+)+' "labels.NAME, with letters, digits and _"
    must ORGANIZATION_ID '[A-Za-z0-9]+(,[A-Za-z0-9]+)*' "ids of DT organizations, separated by commas, or none"
    must RETENTION_DAYS 'none|[2-9]|[1-9][0-9]{1,5}' "a whole number of days, 2 or more, or none"
}

check_function_options() {
    local number='0|[1-9][0-9]{0,5}'
    must LEEWAY "$number" "a whole number of seconds"
    must LOG_LEVEL 'DEBUG|INFO|WARNING|ERROR|CRITICAL' "DEBUG, INFO, WARNING, ERROR or CRITICAL"
    must NAME '[a-z]([a-z0-9-]{0,47}[a-z0-9])?' "at most 49 lower-case letters, digits and -"
    must RUNTIME 'python3[0-9]+' "a runtime such as python313"
    must CONCURRENCY "$number" "a whole number"
    must CPU '[0-9]+|0?\.[0-9]+' "a number of CPUs such as 1 or 0.5"
    must MEMORY '[1-9][0-9]*([KMG]i?B?)?' "a size such as 512Mi"
    must TIMEOUT '[1-9][0-9]*[sm]?' "a duration such as 30s"
    must MIN_INSTANCES "$number" "a whole number"
    must MAX_INSTANCES "$number" "a whole number"
    must PATIENCE "$number" "a whole number of seconds"
}
