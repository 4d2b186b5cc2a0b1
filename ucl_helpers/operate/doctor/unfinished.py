"""Examine traces of earlier runs: state files, requests under way or set aside, a token, pending hooks."""

import os
from contextlib import suppress

from ucl_helpers.connection import state
from ucl_helpers.connection.attempts import FILE as ATTEMPTS_FILE
from ucl_helpers.connection.pending import Pending
from ucl_helpers.errors import HookFailed, KeyLocked, NewTokenNeeded, RetryLater, StorageFailed, UCLError
from ucl_helpers.models import fingerprint
from ucl_helpers.operate.doctor.findings import Finding, failed, ok, skipped, warning
from ucl_helpers.operate.doctor.on_disk import OnDisk, shell

_STATE_FILES = (state.ACTIVATION_FILE, state.HOOKS_FILE, ATTEMPTS_FILE)


def state_files(disk: OnDisk) -> Finding:
    """Examine whether the files that decide what the toolkit does can be read."""
    folder = disk.connection.path
    paths = [folder / name for name in (state.REVOKED_FILE, *_STATE_FILES, "journal.jsonl")]
    if path := next((path for path in paths if os.path.lexists(path) and not path.is_file()), None):
        return failed(f"{path} is not a file", shell("mv", path, f"{path}.damaged"), StorageFailed)
    try:
        disk.connection.verdicts()
    except StorageFailed as error:
        path = folder / state.REVOKED_FILE
        return failed(error.message, shell("mv", path, f"{path}.damaged"), StorageFailed)
    if damaged := state.damaged_files(folder, _STATE_FILES):
        return warning(f"{', '.join(map(str, damaged))}: damaged, so ucl ignores it", shell("rm", *damaged))
    return ok("all readable" if state.has_verdicts(folder) else "none yet, so ucl reads the journal")


def under_way(disk: OnDisk) -> Finding:
    """Examine how far an interrupted renewal or establishment has come, and what the next run does."""
    pending = disk.pending
    if others := [entry for entry in pending.path.glob("[!.]*") if not entry.is_file()]:
        problem = f"a folder, FIFO or broken symlink is where a file should be: {', '.join(map(str, others))}"
        return failed(problem, shell("rm", "-r", *others), StorageFailed)
    facts = pending.read_state()
    if not facts:
        return ok("nothing")
    if facts.kind == "damaged":
        problem = f"{pending.path / 'state.json'} cannot be read; the next run sets it aside and starts again"
        return warning(problem, disk.renew_command("--force") if disk.current else disk.establish_command())
    progress = f"{facts.kind} since {facts.created}: {_stage(disk)}"
    if facts.rejected:
        progress += f" ({facts.rejected} answers failed their checks)"
    finish = disk.renew_command() if facts.kind == "renew" else disk.finish_command()
    if disk.current is None:
        can_go_on = pending.answer() or pending.token()
        return failed(progress, finish, RetryLater) if can_go_on else ok(progress)
    return warning(progress, finish) if facts.sent else ok(progress)


def _stage(disk: OnDisk) -> str:
    pending, certificate = disk.pending, disk.pending.certificate()
    with suppress(KeyLocked):  # "key at rest" reports that
        if not pending.request_is_usable:
            return "its key or CSR is lost or damaged; the next run sets it aside and starts again"
    if not pending.read_state().sent:
        return "begun, nothing was sent; the next run continues with its key and CSR"
    if not pending.answer():
        return f"sent for signing {pending.read_state().sent}, no answer; the next run sends the same CSR again"
    current = disk.current
    if certificate and current and current.is_readable and fingerprint(certificate) == current.fingerprint:
        return "interrupted just after its certificate came into use; the next run cleans up"
    if certificate is None or certificate.not_valid_after_utc <= disk.now:
        return "signed, but the certificate is not usable; the next run sends the same CSR again"
    return "signed, to be verified; the next run continues with it"


def one_time_token(disk: OnDisk) -> Finding:
    """Examine the one-time token that an establishment keeps until it is used."""
    facts = disk.pending.read_state()
    if facts.kind != "establish" or disk.pending.answer():
        return skipped("not needed")
    if disk.pending.token():
        return ok("kept, not used yet")
    end = "expired, 5 minutes after it was issued" if (disk.pending.path / "token").exists() else "used up"
    problem, remedy = f"{end}; ucl keeps key and CSR", disk.establish_command(facts.token_url)
    return warning(problem, remedy) if disk.current else failed(problem, remedy, NewTokenNeeded)


def set_aside(disk: OnDisk) -> Finding:
    """Examine requests that were set aside because a certificate may exist for their keys."""
    aside = disk.connection.aside()
    if damaged := [pending for pending in aside if pending.read_state().keep_until is None]:
        paths = [pending.path for pending in damaged]
        problem = f"ucl cannot read it, so ucl keeps it: {', '.join(map(str, paths))}"
        keep = "Keep it until its certificate has expired or is revoked."
        return warning(problem, keep if any(map(_is_signed, damaged)) else shell("rm", "-r", *paths))
    until = max((str(pending.read_state().keep_until)[:10] for pending in aside), default="")
    return ok(f"{len(aside)}, kept until {until}" if aside else "nothing")


def hooks(disk: OnDisk) -> Finding:
    """Examine whether the hooks have run for the identity in use."""
    configured = disk.settings.hooks
    if not configured or disk.current is None:
        return skipped("none are configured" if not configured else "none yet")
    pending = [hook.name for hook in state.pending_for(disk.connection, disk.current, configured)]
    if not pending:
        return ok(f"{len(configured)}, all have succeeded for this generation")
    failures = disk.connection.hook_failures(disk.current)
    problems = "; ".join(f"{name} failed: {failures[name]}" for name in pending if name in failures)
    remedy = disk.command("hooks")
    if problems:
        return failed(f"{problems}; what it printed is in {disk.connection.path / 'hooks'}", remedy, HookFailed)
    return warning(f"not run yet for this generation: {', '.join(pending)}", remedy)


def _is_signed(pending: Pending) -> bool:
    with suppress(UCLError):
        return bool(pending.signed())
    return False
