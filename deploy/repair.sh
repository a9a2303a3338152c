# Step 8: the scheduled repair. Sourced by deploy.sh; see deploy/common.sh.

check_repair() {
    :
}

plan_repair() {
    :
}

ensure_repair() {
    :
}

# With --remove; prints with --dry-run, as everything that changes something.
remove_repair() {
    :
}
