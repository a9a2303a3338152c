# Step 8: the connection and what the user does next. Sourced by deploy.sh; see deploy/common.sh.

finish() {
    step 8 "the connection" "The endpoint itself is ready."
    mark_rotation
    narrow_role
    ensure_request_log
    ensure_rules
    ensure_monitoring
    ensure_repair
    connect
    [ -n "$DRY_RUN" ] || report
}

report() {
    printf '\nThe endpoint is ready:\n\n    %s\n\n' "$URL"
    if [ -z "$CONNECT_DT_PROJECT" ]; then
        printf '%s\n' "In DT Studio: API Integrations > Data Connectors > Create New Data Connector" \
            "    Endpoint URL        $URL"
        printf '    Signature Secret    '
        show_secret
        printf '    Labels              the labels that the documents should have\n\n'
    elif [ -n "$SHOW_SECRET" ]; then
        printf 'Signature secret: '
        show_secret
    fi
    [ -z "$ROTATE_SECRET" ] || printf '%s\n\n' "Both secrets are accepted. Give the new one to each Data Connector; 13 \
hours later, and not before all of them sign with it: ./deploy.sh --retire-secret"
    report_monitoring
}

show_secret() {
    if [ -z "$SECRET" ]; then
        echo "none; DT signs with its public key"
    elif [ -n "$SHOW_SECRET" ]; then
        "${SECRET_LINES[@]}" | grep -m 1 .
    else
        printf 'the first line of: '
        quoted "${SECRET_LINES[@]}"
    fi
}
