#!/usr/bin/env bash
# Prints what deploy/smoke_test.py reads: an access token for Firestore's REST API, then the lines of the signature secret.
# usage: bash deploy/credentials.sh PROJECT [SECRET VERSION]
set -euo pipefail
# By default gcloud also writes the token that it prints into its log file.
CLOUDSDK_CORE_DISABLE_FILE_LOGGING=true gcloud auth print-access-token
[ $# -eq 1 ] || gcloud secrets versions access "$3" "--secret=$2" "--project=$1"
