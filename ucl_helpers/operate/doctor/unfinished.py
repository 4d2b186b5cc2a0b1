"""What a doctor looks at of what runs have left: what is under way or set aside, a token, half files, hooks to run."""

from contextlib import suppress
from datetime import datetime

from ucl_helpers.connection.hook_state import pending_for
from ucl_helpers.connection.pending import Pending
from ucl_helpers.errors import HookFailed, KeyLocked, NewTokenNeeded, RetryLater, StorageFailed, UCLError
from ucl_helpers.models import Validity, fingerprint
from ucl_helpers.operate.doctor import folders
from ucl_helpers.operate.doctor.findings import Finding, failed, ok, shell, skipped, warning
from ucl_helpers.operate.doctor.on_disk import Kept
from ucl_helpers.tables import moment
from ucl_helpers.wire.tls import Credentials


def under_way(kept: Kept, now: datetime) -> Finding:
    """A renewal or an establishment that was cut off: how far it came, and what the next run does."""
    name, pending = "under way", kept.pending
    if inside := [one for one in pending.path.glob("[!.]*") if one.is_dir()]:
        found = f"a folder is where a file should be: {', '.join(map(str, inside))}"
        return failed(name, found, shell("rm", "-r", *inside), StorageFailed)
    told = pending.state
    if not told:
        return ok(name, "nothing")
    if told["kind"] == "damaged":
        found = f"{pending.path / 'state.json'} cannot be read; the next run sets it aside and starts again"
        return warning(name, found, kept.commands.renew("--force") if kept.current else kept.commands.establish())
    found = f"{told['kind']} since {told.get('created')}: {_stage(kept, now)}"
    if told.get("rejected"):
        found += f" ({told['rejected']} answers failed their checks)"
    finish = kept.commands.renew() if told["kind"] == "renew" else kept.commands.finish()
    if kept.current is None:
        can_go_on = pending.answer() or pending.token()
        return failed(name, found, finish, RetryLater) if can_go_on else ok(name, found)
    return warning(name, found, finish) if told.get("sent") else ok(name, found)


def _stage(kept: Kept, now: datetime) -> str:
    pending, certificate = kept.pending, kept.pending.certificate()
    with suppress(KeyLocked):  # that is told as itself
        if not pending.request_is_usable:
            return "its key or CSR is lost or damaged; the next run sets it aside and starts again"
    if not pending.state.get("sent"):
        return "begun, nothing was sent; the next run continues with its key and CSR"
    if not pending.answer():
        return f"sent for signing {pending.state['sent']}, no answer; the next run sends the same CSR again"
    if certificate and fingerprint(certificate) in {one.fingerprint for one in kept.whole() if one == kept.current}:
        return "interrupted just after its certificate came into use; the next run cleans up"
    if certificate is None or certificate.not_valid_after_utc <= now:
        return "signed, but the certificate is not usable; the next run sends the same CSR again"
    return "signed, to be verified; the next run continues with it"


def one_time_token(kept: Kept) -> Finding:
    """The one-time token that an establishment keeps until it is used."""
    name, told = "one-time token", kept.pending.state
    if told.get("kind") != "establish" or kept.pending.answer():
        return skipped(name, "not needed")
    if kept.pending.token():
        return ok(name, "kept, not used yet")
    gone = "expired, 5 minutes after it was issued" if (kept.pending.path / "token").exists() else "used up"
    found, mend = f"{gone}; ucl keeps key and CSR", kept.commands.establish(told.get("token_url"))
    return warning(name, found, mend) if kept.current else failed(name, found, mend, NewTokenNeeded)


def aside(kept: Kept) -> Finding:
    """What was set aside, because a certificate may exist for its key."""
    every = kept.connection.aside()
    damaged = [one for one in every if "keep_until" not in one.state]
    if damaged:
        found = f"ucl cannot read it, so ucl keeps it: {', '.join(str(one.path) for one in damaged)}"
        if any(_signed(one) for one in damaged):
            return warning("set aside", found, "Keep it until its certificate has expired or is revoked.")
        return warning("set aside", found, shell("rm", "-r", *[one.path for one in damaged]))
    until = max((str(one.state["keep_until"])[:10] for one in every), default="")
    return ok("set aside", f"{len(every)}, kept until {until}" if every else "nothing")


def leftovers(kept: Kept) -> Finding:
    """What a run that was killed was writing or removing."""
    found = folders.leftovers(kept.connection)
    if found and folders.held(kept.connection.lock.path):
        return ok("leftovers", "they belong to the run that holds the lock")
    if found:
        names = ", ".join(str(one.relative_to(kept.connection.path)) for one in found)
        mend = kept.commands.renew() if kept.current else kept.commands.finish()
        return warning("leftovers", f"left by a run that was killed: {names}; the next run removes them", mend)
    return ok("leftovers", "none")


def hooks(kept: Kept) -> Finding:
    """What has to be told of the identity in use, and was not yet."""
    name, configured = "hooks", kept.settings.hooks
    if not configured or kept.current is None:
        return skipped(name, "none are configured" if not configured else "none yet")
    pending = [one.name for one in pending_for(kept.connection, kept.current, configured)]
    if not pending:
        return ok(name, f"{len(configured)}, all have succeeded for this generation")
    failures = kept.connection.hook_failures(kept.current)
    problems = {one: failures[one] for one in pending if one in failures}
    mend = kept.commands.ucl("hooks", kept.name)
    if problems:
        found = "; ".join(f"{one} failed: {problem}" for one, problem in problems.items())
        return failed(name, f"{found}; what it printed is in {kept.connection.path / 'hooks'}", mend, HookFailed)
    return warning(name, f"not run yet for this generation: {', '.join(pending)}", mend)


def others(kept: Kept, now: datetime) -> Finding:
    """Certificates that UCL may accept besides the one in use."""
    used, found = kept.revoked(), dict[str, str]()

    def note(where: str, credentials: Credentials) -> None:
        mark, end = fingerprint(credentials.certificate), Validity.of(credentials.certificate).not_after
        if mark not in used and now < end:
            found.setdefault(mark, f"{where}, to {moment(end)}")

    if kept.current and (in_use := kept.current.usable):
        used.add(fingerprint(in_use.certificate))
    for one in kept.generations:
        if credentials := one.usable:
            note(f"generation {one.name}", credentials)
    for pending in [kept.pending, *kept.connection.aside()]:
        for credentials in _signed(pending):
            note(f"signed, never used ({pending.path.name})", credentials)
    return ok("other valid certificates", "; ".join(found.values()) or "none")


def _signed(pending: Pending) -> list[Credentials]:
    with suppress(UCLError):
        return pending.signed()
    return []
