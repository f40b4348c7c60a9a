"""The versions of every policy: what came in, what was accepted, what may go.

A version is put as a candidate, accepted as the newest, and dropped once enough newer ones came. A request
holds its version while it runs: the engine and the files lose it only after the last such request ended.
"""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from rollout_server import adapter_file, metrics
from rollout_server.engines import Adapter, Engine
from rollout_server.errors import ApiError
from rollout_server.schema import AdapterReceipt

MOST_POLICIES = 32
"""More than the runs that share a server at a time; those that end leave their versions behind."""


@dataclass(kw_only=True, slots=True, eq=False)
class _Version:
    adapter: Adapter
    modules: int
    accepted: bool = False
    users: int = 0
    dropped: bool = False

    @property
    def receipt(self) -> AdapterReceipt:
        return AdapterReceipt(
            policy=self.adapter.policy,
            policy_version=self.adapter.version,
            sha256=self.adapter.sha256,
            modules=self.modules,
            accepted=self.accepted,
        )


class Adapters:
    """All versions that can be asked for.

    Args:
        engine: loads and samples from them.
        folder: where their files lie; must exist, and belongs to this object alone.
        keep: versions of each policy that stay served; the newest accepted one always does.
        policies: that stay served; beyond that goes the one that was not asked for for the longest time.
    """

    def __init__(self, engine: Engine, folder: Path, *, keep: int, policies: int = MOST_POLICIES) -> None:
        self._engine = engine
        self._folder = folder
        self._keep = keep
        self._most = policies
        self._policies: dict[str, dict[int, _Version]] = {}
        """By name, the one that was asked for last at the end."""
        self._ids = itertools.count(1)
        self._putting = asyncio.Lock()

    def __iter__(self) -> Iterator[AdapterReceipt]:
        """Receipts of all that is served, the policies in the order of their names, oldest version first."""
        for _, versions in sorted(self._policies.items()):
            yield from (version.receipt for version in versions.values())

    async def put(self, policy: str, number: int, body: bytes, sha256: str) -> AdapterReceipt:
        """Check the bytes, load them, and serve them as a candidate. The same bytes again change nothing.

        Raises:
            ApiError: 400 or 422 as `adapter_file.check`, 409 when the version holds other bytes, 507 when there is no
                room for it.
        """
        start = monotonic()
        file = await asyncio.to_thread(adapter_file.check, body, sha256, self._engine.facts)
        async with self._putting:
            present = self._policies.get(policy, {}).get(number)
            if present:
                return self._same(present, file.sha256)
            adapter_id = next(self._ids)
            path = self._folder / str(adapter_id)
            adapter = Adapter(policy=policy, version=number, id=adapter_id, sha256=file.sha256, path=path)
            try:
                await asyncio.to_thread(file.write, adapter.path)
                await self._engine.load_adapter(adapter)
            except OSError as error:
                shutil.rmtree(adapter.path, ignore_errors=True)
                detail = f"{policy} version {number} cannot be written: {error.strerror}"
                raise ApiError(507, "no room on the disk", detail, fix="Make room where TMPDIR is.") from None
            except BaseException:
                shutil.rmtree(adapter.path, ignore_errors=True)
                raise
            metrics.LOADING.observe(monotonic() - start)
            version = _Version(adapter=adapter, modules=file.modules)
            self._policies.setdefault(policy, {})[number] = version
            self._asked(policy)
            await self._drop_oldest(policy, but=version)
            if len(self._policies) > self._most:
                for idle in list(next(iter(self._policies.values())).values()):
                    if not idle.dropped:  # by somebody else, while the one before was
                        await self._drop(idle)
            return version.receipt

    async def accept(self, policy: str, number: int) -> AdapterReceipt:
        """Make a candidate what requests for the newest version get. Accepting it again changes nothing.

        Raises:
            ApiError: 404 when it is not served, 409 when a newer version was accepted already.
        """
        version = self._find(policy, number)
        newest = self._newest(policy)
        if newest and newest.adapter.version > number:
            raise ApiError(
                409,
                "version is not the newest",
                f"version {newest.adapter.version} of policy {policy} is accepted already, {number} is older",
                fix="Accept versions in rising order; older ones can be asked for by their number.",
            )
        version.accepted = True
        await self._drop_oldest(policy, but=version)
        return version.receipt

    async def delete(self, policy: str, number: int) -> None:
        """Serve a version no longer; requests that run keep it to their end. Raises ApiError 404 if unknown."""
        await self._drop(self._find(policy, number))

    @asynccontextmanager
    async def use(self, policy: str | None, number: int | None) -> AsyncIterator[Adapter | None]:
        """Hold a version (None: the newest accepted one) of a policy (None: the base) while a request runs.

        Raises:
            ApiError: 404 when it is not served, 409 when no version of the policy is accepted yet, 422 for a
                version of the base.
        """
        if policy is None:
            if number is not None:
                detail = f"policy_version is {number}, but the base model (policy null) has no versions"
                raise ApiError(422, "invalid request", detail, fix="Name the policy, or leave policy_version out.")
            yield None
            return
        version = self._newest_accepted(policy) if number is None else self._find(policy, number)
        self._asked(policy)
        version.users += 1
        try:
            yield version.adapter
        finally:
            version.users -= 1
            await self._free(version)

    def _asked(self, policy: str) -> None:
        self._policies[policy] = self._policies.pop(policy)

    def _find(self, policy: str, number: int) -> _Version:
        version = self._policies.get(policy, {}).get(number)
        if version is None:
            detail = f"version {number} of policy {policy} is not served; served are: {self._served(policy)}"
            fix = "Ask for one of these, or put the version again: a restarted server has none."
            raise ApiError(404, "unknown version", detail, fix=fix)
        return version

    def _newest(self, policy: str) -> _Version | None:
        accepted = [version for version in self._policies.get(policy, {}).values() if version.accepted]
        return max(accepted, key=lambda version: version.adapter.version, default=None)

    def _newest_accepted(self, policy: str) -> _Version:
        if policy not in self._policies:
            detail = f"no version of policy {policy} is served; served are: {self._served(policy)}"
            fix = "Put a version and accept it: a restarted server has none."
            raise ApiError(404, "unknown policy", detail, fix=fix)
        newest = self._newest(policy)
        if newest is None:
            detail = f"no version of policy {policy} is accepted; candidates are: {self._served(policy)}"
            fix = "Accept a candidate, or name its policy_version."
            raise ApiError(409, "no accepted version", detail, fix=fix)
        return newest

    def _served(self, policy: str) -> str:
        """For error messages: the versions of this policy, or else the policies there are."""
        if policy in self._policies:
            return f"versions {', '.join(map(str, self._policies[policy]))} of policy {policy}"
        return f"the policies {', '.join(sorted(self._policies))}" if self._policies else "none at all"

    def _same(self, present: _Version, sha256: str) -> AdapterReceipt:
        if present.adapter.sha256 != sha256:
            raise ApiError(
                409,
                "version is taken",
                f"version {present.adapter.version} of policy {present.adapter.policy} holds sha256 "
                f"{present.adapter.sha256}, and {sha256} was sent",
                fix="A version is never replaced: publish under the next number, or delete this one first.",
            )
        return present.receipt

    async def _drop_oldest(self, policy: str, *, but: _Version) -> None:
        """Keep the newest few of a policy, whatever happens its newest accepted version and this one."""
        versions = self._policies[policy]
        stay = (self._newest(policy), but)
        others = [version for version in versions.values() if version not in stay]
        if len(versions) > self._keep and others:
            await self._drop(others[0])

    async def _drop(self, version: _Version) -> None:
        versions = self._policies[version.adapter.policy]
        del versions[version.adapter.version]
        if not versions:
            del self._policies[version.adapter.policy]
        version.dropped = True
        await self._free(version)

    async def _free(self, version: _Version) -> None:
        if version.dropped and not version.users:
            await self._engine.remove_adapter(version.adapter)
            shutil.rmtree(version.adapter.path)
