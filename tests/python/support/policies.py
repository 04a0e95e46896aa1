"""IAM policies, checked by parliament."""

import parliament


def findings(text):
    return [
        parliament.enhance_finding(finding)
        for finding in parliament.analyze_policy_string(text).findings
    ]
