#!/usr/bin/env bash
# Deploys the function to Google Cloud: from an empty project to a tested endpoint that stores events in Firestore.
# Each step reads the current state and changes only what is missing or different. Runs on the bash 3.2 of macOS too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

source deploy/common.sh
source deploy/options.sh
source deploy/project.sh
source deploy/database.sh
source deploy/account.sh
source deploy/secret.sh
source deploy/indexes.sh
source deploy/function.sh
source deploy/smoke.sh
source deploy/metric.sh
source deploy/monitoring.sh
source deploy/repair.sh
source deploy/connect.sh
source deploy/report.sh

main() {
    trap explain_failure EXIT
    SCRATCH=$(mktemp -d)
    read_options "$@"
    check_options
    set_defaults
    check_machine
    read_secret
    choose_project
    show_plan
    confirm
    check_project
    ensure_apis
    ensure_database
    ensure_account
    ensure_secret
    ensure_indexes
    deploy_function
    smoke_test
    finish
}

main "$@"
