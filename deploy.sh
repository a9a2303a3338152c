#!/usr/bin/env bash
# Deploys the function to Google Cloud: from an empty project to a tested endpoint that stores events in Firestore.
# Each step reads the current state and changes only what is missing or different. Runs on the bash 3.2 of macOS too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

source deploy/common.sh
source deploy/options.sh
source deploy/project.sh
source deploy/settings.sh
source deploy/database.sh
source deploy/account.sh
source deploy/secret.sh
source deploy/indexes.sh
source deploy/function.sh
source deploy/smoke.sh
source deploy/request_log.sh
source deploy/rules.sh
source deploy/monitoring.sh
source deploy/repair.sh
source deploy/connect.sh
source deploy/report.sh
source deploy/rollback.sh
source deploy/remove.sh

main() {
    trap explain_failure EXIT
    SCRATCH=$(mktemp -d)
    read_options "$@"
    check_options
    check_machine
    read_secret
    choose_project
    check_project
    read_state
    if [ -n "$ROLLBACK" ]; then
        roll_back
    elif [ -n "$REMOVE" ]; then
        remove
    else
        deploy
    fi
    STEP=''
}

deploy() {
    complete_settings
    read_database
    show_plan
    confirm
    ensure_apis
    ensure_database
    ensure_account
    ensure_secret
    ensure_indexes
    ensure_function
    smoke_test
    finish
}

main "$@"
