"""The settings of identity, and of what it tells others."""

from pathlib import Path
from typing import Annotated, Literal

from cumulet.config.backends import BackendSettings
from cumulet.config.words import says


class IdentitySettings(BackendSettings, frozen=True, kw_only=True):
    """What identity is told."""

    admin_password: Annotated[
        str, says("The admin's password, set at the first start; prefer the environment to the flag.", "generated")
    ] = ""
    token_lifetime: Annotated[int, says("How long a token is valid, in seconds.", ge=60)] = 14400
    limit_model: Annotated[
        Literal["flat", "strict_two_level"],
        says("How unified limits hold: each by itself, or no project's above its domain's (in trees of two levels)."),
    ] = "flat"
    allow_expired_window: Annotated[
        int,
        says(
            "How long after its end a token still counts in a request that a service hands on with a token of its own, "
            "in seconds.",
            ge=0,
        ),
    ] = 48 * 3600
    policy_file: Annotated[
        Path | None,
        says(
            "The YAML or JSON file with rules that override the defaults of policy, under upstream's names (`cumulet policy`).",
            "policy.yaml in the data directory, if it is there",
        ),
    ] = None
    notification_format: Annotated[
        Literal["cadf", "basic"],
        says("How identity tells of changes: as CADF events (DMTF DSP0262), or with no more than the object's ID."),
    ] = "cadf"
    audit_log: Annotated[
        Path | None,
        says(
            "The file for notifications of every change of identity and every login, one JSON object a line.",
            "not written",
        ),
    ] = None
    auth_ttl: Annotated[
        int, says("For how many minutes after it was signed a request of EC2 is good to authenticate with.", ge=1)
    ] = 15
    credential_user_limit: Annotated[
        int, says("How many credentials a user may have; -1 is as many as he likes.", ge=-1)
    ] = -1
    request_token_duration: Annotated[
        int, says("How long a request token of OAuth 1.0 is valid, in seconds; 0 is for ever.", ge=0)
    ] = 28800
    access_token_duration: Annotated[
        int, says("How long an access token of OAuth 1.0 is valid, in seconds; 0 is for ever.", ge=0)
    ] = 86400
    max_redelegation_count: Annotated[
        int, says("How often what a trust gives may be passed on by further trusts.", ge=0, le=16)
    ] = 3
    application_credential_limit: Annotated[
        int, says("How many application credentials a user may have; -1 is any number.", ge=-1)
    ] = -1
    federation: Annotated[
        Path | None,
        says("The TOML file that says where the assertions of identity providers come from.", "no federated logins"),
    ] = None
    lockout_failure_attempts: Annotated[
        int, says("How many wrong passwords in a row lock a user out.", "0: nobody is locked out", ge=0)
    ] = 0
    lockout_duration: Annotated[
        int,
        says("How long a locked user stays locked, in seconds; 0: until an administrator enables him again.", ge=0),
    ] = 1800
    disable_user_account_days_inactive: Annotated[
        int, says("After how many days without a login a user counts as disabled.", "0: never", ge=0)
    ] = 0
    password_expires_days: Annotated[
        int, says("For how many days a new password is good.", "0: for ever", ge=0, le=36500)
    ] = 0
    unique_last_password_count: Annotated[
        int, says("From how many of his last passwords a user's own new one must differ.", "0: from none", ge=0, le=64)
    ] = 0
    minimum_password_age: Annotated[
        int, says("How many days must pass before a user changes again a password that he chose.", ge=0, le=36500)
    ] = 0
    password_regex: Annotated[str, says("The regular expression that new passwords must match.", "any password")] = ""
    password_regex_description: Annotated[
        str, says("What users are told of `password_regex`.", "the expression itself")
    ] = ""
    change_password_upon_first_use: Annotated[
        bool, says("Whether users must change a password that an administrator gave them before they log in.")
    ] = False
    receipt_lifetime: Annotated[
        int, says("How long a login that needs further proofs can be gone on with, in seconds.", ge=1)
    ] = 300
    totp_previous_windows: Annotated[
        int, says("How many one-time passcodes before the present one are taken as well.", ge=0, le=10)
    ] = 1

    def find_policy_file(self) -> Path | None:
        """The operator's policy file: the one set, else the one in the data directory, if it is there."""
        usual = self.data / "policy.yaml"
        return self.policy_file or (usual if usual.exists() else None)
