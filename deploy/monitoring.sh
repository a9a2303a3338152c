# Step 8: dashboard, notification channels and alert policies. Sourced by deploy.sh; see deploy/common.sh.

check_monitoring() {
    :
}

plan_monitoring() {
    :
}

ensure_monitoring() {
    :
}

# With --remove; prints with --dry-run, as everything that changes something.
remove_monitoring() {
    :
}
