"""A container as a web site."""

import hmac
import time
from pathlib import Path

import pytest

from cumulet.services.object_store.layers.staticweb_pages import readable
from tests.services.object_store.stores import DEMO, Store, object_store

SITE = f"/v1/{DEMO}/site"


@pytest.fixture
async def store(store: Store) -> Store:
    """With a public container, and some pages in it."""
    await store.put("site", X_Container_Read=".r:*,.rlistings")
    for name in ("page.html", "dir/a b&<c>.txt", "dir/sub/deep.txt", "other/index.html", "index.html"):
        await store.put(f"site/{name}", name.encode(), Content_Type="text/html")
    return store


async def test_a_container_is_no_site_by_itself(store: Store) -> None:
    reply = await store("GET", SITE, token="nobody")
    assert reply.data.splitlines()[0] == b"dir/a b&<c>.txt"
    assert (await store("GET", SITE, token="nobody", X_Web_Mode="true")).status == 404
    assert (await store("GET", f"{SITE}/dir/", token="nobody")).status == 404


async def test_an_index(store: Store) -> None:
    await store.post("site", X_Container_Meta_Web_Index="index.html")
    reply = await store("GET", SITE, token="nobody")
    assert (reply.status, reply.headers["Location"]) == (301, f"{store.url}{SITE}/")
    assert await store.get(f"{SITE}/", token="nobody") == b"index.html"
    assert await store.get(f"{SITE}/other/", token="nobody") == b"other/index.html"
    assert (await store("GET", f"{SITE}/other", token="nobody")).headers["Location"] == f"{store.url}{SITE}/other/"
    assert (await store("GET", f"{SITE}/dir", token="nobody")).status == 301
    reply = await store("GET", f"{SITE}/dir/", token="nobody")
    assert (reply.status, b"Web Listing Disabled" in reply.data) == (404, True)
    assert b"Index File Not Found" in reply.data


@pytest.mark.parametrize("token", ["member", "admin"])
async def test_whoever_has_a_token_sees_the_container(store: Store, token: str) -> None:
    await store.post("site", X_Container_Meta_Web_Index="index.html")
    assert b"page.html" in await store.get(SITE, token=token)
    assert await store.get(f"{SITE}/", token=token, X_Web_Mode="true") == b"index.html"


async def test_listings(store: Store) -> None:
    await store.post("site", X_Container_Meta_Web_Listings="true")
    page = (await store.get(f"{SITE}/", token="nobody")).decode()
    assert f"<title>Listing of {SITE}/</title>" in page
    assert '<a href="./dir/">dir/</a>' in page
    assert '<a href="./page%2Ehtml">page.html</a>' in page
    assert 'class="item type-text type-html"' in page
    assert 'href="../"' not in page
    below = (await store.get(f"{SITE}/dir/", token="nobody")).decode()
    assert '<a href="./a%20b%26%3Cc%3E%2Etxt">a b&amp;&lt;c&gt;.txt</a>' in below
    assert '<a href="../">../</a>' in below
    assert '<td class="colsize">15</td>' in below
    assert (await store("GET", f"{SITE}/none/", token="nobody")).status == 404
    assert (await store("HEAD", f"{SITE}/dir/", token="nobody")).status == 200


async def test_the_looks_of_listings(store: Store) -> None:
    style = {"X-Container-Meta-Web-Listings": "yes", "X-Container-Meta-Web-Listings-Css": "look.css"}
    await store.post("site", headers=style | {"X-Container-Meta-Web-Listings-Label": "<mine>"})
    link = '<link rel="stylesheet" type="text/css" href="{}look.css" />'
    assert link.format("") in (await store.get(f"{SITE}/", token="nobody")).decode()
    page = (await store.get(f"{SITE}/dir/sub/", token="nobody")).decode()
    assert link.format("../../") in page
    assert "Listing of &lt;mine&gt;/dir/sub/" in page
    await store.post("site", headers=style | {"X-Container-Meta-Web-Listings-Css": "https://example.com/a.css"})
    assert 'href="https://example.com/a.css"' in (await store.get(f"{SITE}/", token="nobody")).decode()


async def test_pages_for_errors(store: Store) -> None:
    await store.post(
        "site", headers={"X-Container-Meta-Web-Error": "error.html", "X-Container-Meta-Web-Index": "index.html"}
    )
    reply = await store("GET", f"{SITE}/nothing", token="nobody")
    assert reply.status == 404
    assert b"gone" not in reply.data
    await store.put("site/404error.html", b"gone fishing")
    reply = await store("GET", f"{SITE}/nothing", token="nobody")
    assert (reply.status, reply.data) == (404, b"gone fishing")


async def test_what_is_not_public(store: Store) -> None:
    await store.post("site", headers={"X-Container-Read": "", "X-Container-Meta-Web-Listings": "true"})
    for path in (SITE, f"{SITE}/", f"{SITE}/page.html"):
        assert (await store("GET", path, token="nobody")).status == 401
    assert (await store("GET", f"{SITE}/", token="other", X_Web_Mode="true")).status == 403
    await store.post("site", X_Container_Read=".r:*")
    assert (await store("GET", f"{SITE}/page.html", token="nobody")).status == 200
    assert (await store("GET", f"{SITE}/", token="nobody")).status == 401, "listings need .rlistings"


async def test_markers_of_directories(store: Store) -> None:
    await store.post("site", X_Container_Meta_Web_Listings="true")
    await store.put("site/dir", b"", Content_Type="application/directory")
    assert (await store("GET", f"{SITE}/dir", token="nobody")).status == 301
    await store.post("site", headers={"X-Container-Meta-Web-Directory-Type": "text/directory"})
    assert (await store("GET", f"{SITE}/dir", token="nobody")).status == 200


async def test_a_site_by_a_temporary_url(store: Store) -> None:
    await store.post("site", headers={"X-Container-Read": "", "X-Container-Meta-Web-Listings": "true",
                                      "X-Container-Meta-Temp-Url-Key": "key"})  # fmt: skip
    end = int(time.time()) + 600
    signed = hmac.new(b"key", f"GET\n{end}\nprefix:{SITE}/dir/".encode(), "sha256").hexdigest()
    query = f"temp_url_prefix=dir/&temp_url_expires={end}&temp_url_sig={signed}"
    page = (await store.get(f"{SITE}/dir/?{query}", token="nobody")).decode()
    assert f'<a href="./sub/?{query.replace("&", "&amp;")}">sub/</a>' in page
    assert 'href="../' not in page, "nothing above may be seen"
    assert 'href="../' in (await store.get(f"{SITE}/dir/sub/?{query}", token="nobody")).decode()
    reply = await store("GET", f"{SITE}/dir/sub/deep.txt?{query}", token="nobody")
    assert (reply.data, reply.headers["Content-Disposition"].split(";")[0]) == (b"dir/sub/deep.txt", "attachment")
    assert (await store("GET", f"{SITE}/other/?{query}", token="nobody")).status == 401


async def test_visitors_can_be_sent_elsewhere(tmp_path: Path) -> None:
    async with object_store(tmp_path, object_staticweb_url="https://www.example.com/x") as store:
        await store.put("site", headers={"X-Container-Read": ".r:*,.rlistings", "X-Container-Meta-Web-Index": "i"})
        reply = await store("GET", SITE, token="nobody")
        assert reply.headers["Location"] == f"https://www.example.com{SITE}/"


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0"), (1023, "1023"), (1024, "1Ki"), (1 << 20, "1Mi"), (5 << 40, "5Ti")]
)
def test_sizes(size: int, text: str) -> None:
    assert readable(size) == text
