"""Static web: a container's objects as a web site, for visitors without a token (or with one, and `X-Web-Mode: true`).

The container's metadata says how: X-Container-Meta-Web-Index, -Web-Error, -Web-Listings, -Web-Listings-Css,
-Web-Listings-Label, -Web-Directory-Type.
Reference: https://docs.openstack.org/swift/latest/middleware.html#staticweb
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

from msgspec.structs import replace

from cumulet.api.http import Query
from cumulet.services.object_store.layers.staticweb_pages import css_path, disabled, listing, rows_of
from cumulet.services.object_store.layers.tempurl import GENERATED, TempUrl
from cumulet.services.object_store.message import Handler, Headers, Request, Response, close, drain, refuse
from cumulet.services.object_store.proxy.info import Info, container_info
from cumulet.services.object_store.values import is_true
from cumulet.services.object_store.words import requested_path

if TYPE_CHECKING:
    from cumulet.services.object_store.runtime import ObjectStoreRuntime

DIRECTORY = "application/directory"
HTML = "text/html; charset=UTF-8"


@dataclass(frozen=True, slots=True)
class Site:
    """What the container's metadata says of the site."""

    index: str = ""
    error: str = ""
    listings: str = ""
    css: str = ""
    label: str = ""
    directory: str = ""

    @classmethod
    def of(cls, info: Info) -> "Site":
        if not info.ok:
            return cls()
        names = ("index", "error", "listings", "listings-css", "listings-label", "directory-type")
        return cls(*(info.meta.get(f"web-{name}", "").strip() for name in names))

    @property
    def there(self) -> bool:
        return bool(self.listings or self.index)


class StaticWeb:
    def __init__(self, service: "ObjectStoreRuntime", app: Handler) -> None:
        self.app = app
        base = urlsplit(service.kernel.settings.object_staticweb_url)
        self.base_url = f"{base.scheme}://{base.netloc}" if base.netloc else ""
        service.told["staticweb"] = {}

    def __call__(self, request: Request) -> Awaitable[Response]:
        if not request.container or request.method not in ("GET", "HEAD") or request.authorize is None:
            return self.app(request)
        visitor = not request.caller.user_id or is_true(request.headers.get("X-Web-Mode"))
        if not visitor or request.source:
            return self.app(request)
        return self._object(request) if request.object else self._container(request)

    async def _container(self, request: Request) -> Response:
        """The site's front page: its index, or what is in it."""
        info = await container_info(self.app, request)
        site = Site.of(info)
        asked = replace(request, acl=info.headers.get("X-Container-Read", ""))
        refusal = await asked.authorize(asked) if asked.authorize else None
        if refusal is not None:
            return await self._error(request, site, refusal)
        if not site.there:
            return refuse(404) if is_true(request.headers.get("X-Web-Mode")) else await self.app(request)
        if not request.raw_path.endswith("/"):
            return self._with_slash(request)
        if site.index:
            response = await self.app(_at(request, site.index))
            if response.status != 404:
                return response if response.status < 400 else await self._error(request, site, response)
            await close(response)
        return await self._listing(request, site, "")

    async def _object(self, request: Request) -> Response:
        """An object; or the index of what is a directory in its name, or what is in that."""
        response = await self.app(replace(request, source="staticweb"))
        if response.status not in (404, *range(200, 400)):
            return response
        site = Site.of(await container_info(self.app, request))
        if response.status != 404:
            marker = response.headers.get("Content-Type") == (site.directory or DIRECTORY)
            if not marker or int(response.headers.get("Content-Length") or 0) > 1:
                return response
        if not site.there:
            return response
        await close(response)
        slash = request.raw_path.endswith("/")
        if site.index:
            found = await self.app(_at(request, request.object + ("" if slash else "/") + site.index))
            if found.status < 400:
                if slash:
                    return found
                await close(found)
                return self._with_slash(request)
            if found.status != 404:
                return await self._error(request, site, found)
            await close(found)
        if slash:
            return await self._listing(request, site, request.object)
        below = await self._names(request, request.object + "/", limit="1")
        if not below.ok or not rows_of(await drain(below)):
            return await self._error(request, site, refuse(404))
        return self._with_slash(request)

    async def _names(self, request: Request, prefix: str, **more: str) -> Response:
        """What is in a directory, as JSON."""
        query = {"format": "json", "delimiter": "/"} | ({"prefix": prefix} if prefix else {}) | more
        return await self.app(
            request.sub("GET", source="staticweb", object="", query=Query(urlencode(query)), headers=Headers())
        )

    async def _listing(self, request: Request, site: Site, prefix: str) -> Response:
        path = requested_path(request)
        label = path if not site.label else f"{site.label}/{'/'.join(path.split('/')[4:])}"
        css = css_path(site.css, prefix) if site.css else ""
        if not is_true(site.listings):
            page = disabled(label, css, site.index)
            return await self._error(request, site, Response(404, page.encode(), {"Content-Type": HTML}))
        names = await self._names(request, prefix)
        if not names.ok:
            return await self._error(request, site, names)
        rows = rows_of(await drain(names))
        if prefix and not rows:
            return await self._error(request, site, refuse(404))
        url: TempUrl | None = request.memo.get(TempUrl)
        below = len(url.prefix or "") if url is not None else 0
        page = listing(label, css, rows, prefix, up=len(prefix) > below, query=_links(url))
        return Response(200, page.encode(), {"Content-Type": HTML, GENERATED: "staticweb"})

    async def _error(self, request: Request, site: Site, response: Response) -> Response:
        """The site's own page for an error, if it has one; the status stays."""
        if not site.error:
            return response
        page = await self.app(
            request.sub("GET", source="staticweb", object=f"{response.status}{site.error}", headers=Headers())
        )
        if not page.ok:
            await close(page)
            return response
        await close(response)
        return Response(response.status, page.body, page.headers)

    def _with_slash(self, request: Request) -> Response:
        url = (self.base_url or request.base_url) + quote(requested_path(request)) + "/"
        return Response(301, b"", {"Location": url, "Content-Type": HTML})


def _at(request: Request, name: str) -> Request:
    """The same request, of another object of the container."""
    path = f"/{request.version}/{request.account}/{request.container}/{name}"
    return replace(request, object=name, raw_path=quote(path), acl=None, source="staticweb")


def _links(url: TempUrl | None) -> str:
    """What links carry on, where a visitor came by a temporary URL for many objects."""
    if url is None or url.prefix is None:
        return ""
    parts = [
        f"temp_url_prefix={quote(url.prefix)}",
        f"temp_url_expires={quote(url.expires)}",
        f"temp_url_sig={quote(url.signature)}",
    ]
    if url.ip_range:
        parts.append(f"temp_url_ip_range={quote(url.ip_range)}")
    if url.inline:
        parts.append("inline")
    return "?" + "&amp;".join(parts)
