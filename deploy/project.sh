# Step 1: the machine and the project. Sourced by deploy.sh; see deploy/common.sh.

# A Python 3.8 or newer with certificates of authorities; the one of python.org has none on macOS at first.
USABLE='import os, ssl, sys
paths = ssl.get_default_verify_paths()
sys.exit(sys.version_info < (3, 8) or not (paths.cafile or paths.capath and os.listdir(paths.capath)))'

check_machine() {
    step 1 "checks" "Fix the problem above."
    [ -z "${FIRESTORE_EMULATOR_HOST:-}" ] ||
        fail "FIRESTORE_EMULATOR_HOST is set, but this deploys to the real Firestore: unset it."
    local tool
    for tool in gcloud openssl; do
        command -v $tool >/dev/null || fail "$tool is not installed. For gcloud see https://cloud.google.com/sdk/docs/install"
    done
    PYTHON=python3
    python3 -c "$USABLE" 2>/dev/null || PYTHON=$(gcloud info --format='value(basic.python_location)')
    export CLOUDSDK_CORE_DISABLE_PROMPTS=1
}

choose_project() {
    local configured=','
    PROJECT=${PROJECT:-${GOOGLE_CLOUD_PROJECT:-}} REGION=${REGION:-${GOOGLE_CLOUD_REGION:-}}
    [ -n "$PROJECT" ] && [ -n "$REGION" ] ||
        configured=$(gcloud config list --format='csv[no-heading](core.project,functions.region,run.region,compute.region)')
    PROJECT=${PROJECT:-${configured%%,*}}
    [ -n "$REGION" ] || REGION=$(printf %s "${configured#*,}" | tr ',' '\n' | grep -m 1 . || true)
    [ -n "$PROJECT" ] || refuse "no project: set one with --project"
    [ -n "$REGION" ] || refuse "no region: set one with --region, for example europe-west1"
    must PROJECT '[a-z][a-z0-9.:-]{4,61}[a-z0-9]' "a project id"
    must REGION '[a-z]+-[a-z]+[0-9]+' "a region such as europe-west1"
    IN_PROJECT=("--project=$PROJECT")
}

check_project() {
    local billing
    gcloud projects describe "$PROJECT" --format=none ||
        fail "The project $PROJECT cannot be read. Check that gcloud is logged in (gcloud auth login), that the project \
id is correct, and that this account has access to the project."
    if billing=$(gcloud billing projects describe "$PROJECT" --format='value(billingEnabled)' 2>"$SCRATCH/billing"); then
        [ "$billing" = True ] ||
            fail "Billing is disabled. Enable it: https://console.cloud.google.com/billing/linkedaccount?project=$PROJECT"
    else
        say "Cannot read whether billing is enabled; if it is disabled, the next step fails:" "$(cat "$SCRATCH/billing")"
    fi
}
