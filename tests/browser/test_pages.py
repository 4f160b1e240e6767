"""Pages of modules in a browser, as docs/browsers.md says: styles, logins side by side, links, streams, WebSockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.browser.conftest import write

if TYPE_CHECKING:
    from pathlib import Path

    from tests.browser.conftest import Browser
    from tests.e2e.conftest import BaseProcess

SETTINGS = """
import os

SCRIPT_NAME = os.environ.get("SCRIPT_NAME", "")  # empty alone
STATIC_URL, WHITENOISE_STATIC_PREFIX, WHITENOISE_USE_FINDERS = f"{SCRIPT_NAME}/static/", "/static/", True

SECRET_KEY, ALLOWED_HOSTS, ROOT_URLCONF = "of {name}", ["*"], "mysite.urls"
INSTALLED_APPS = [
    f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware", "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware", "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware", "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
processors = ("template.context_processors.request", "contrib.auth.context_processors.auth",
              "contrib.messages.context_processors.messages")
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
              "OPTIONS": {"context_processors": [f"django.{name}" for name in processors]}}]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
DEFAULT_AUTO_FIELD, TIME_ZONE, USE_TZ = "django.db.models.AutoField", "UTC", True
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
"""
URLS = """
from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
"""
SERVED = """
from django.contrib.staticfiles.views import serve
from django.urls import re_path

urlpatterns += [re_path(r"^static/(?P<path>.*)$", serve, {"insecure": True})]
"""
ENTRY = """
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()

from django.contrib.auth.models import User
from django.core.management import call_command

call_command("migrate", verbosity=0)
User.objects.filter(username="ann").exists() or User.objects.create_superuser("ann", "", "secret")
"""
BLUE = "rgba(65, 118, 144, 1)"
"""The head of an admin with its style."""
DJANGO = {"mysite/__init__.py": "", "mysite/settings.py": SETTINGS, "mysite/urls.py": URLS, "mysite/wsgi.py": ENTRY}


def deploy_django(base: BaseProcess, project: Path, *, settings: str = "", urls: str = "", keys: str = "") -> None:
    changed = {
        "mysite/settings.py": SETTINGS.replace("{name}", project.name, 1) + settings,
        "mysite/urls.py": URLS + urls,
    }
    files = {**DJANGO, **changed}
    table = f'entry = "mysite.wsgi:application"\n{keys}\nenv.SCRIPT_NAME = "/{project.name}"'
    base.deploy(write(project, files, keys=table, needs=("django", "whitenoise")))


def log_in(browser: Browser, admin: str) -> None:
    """Log in by the form, which is protected against forgery by a cookie."""
    browser.open(admin)
    browser.find("[name=username]").type("ann")
    browser.find("[name=password]").type("secret")
    browser.find("[type=submit]").click()
    browser.shows("Site administration")


def is_in(browser: Browser, admin: str) -> bool:
    browser.open(admin)
    return "Log in" not in browser.chrome.title


def check_two_admins(browser: Browser, first: str, second: str) -> None:
    """Two logins side by side, and the end of one."""
    for admin in (first, second):
        log_in(browser, admin)
    assert is_in(browser, first)
    assert is_in(browser, second)
    browser.find("#logout-form button").click()
    browser.shows("Logged out")
    assert is_in(browser, first)
    assert not is_in(browser, second)


def test_two_django_admins_below_paths_are_styled_and_have_a_login_each(
    base: BaseProcess, browser: Browser, tmp_path: Path
) -> None:
    for name in ("blog", "shop"):
        named = f'\nSESSION_COOKIE_NAME, CSRF_COOKIE_NAME = "{name}_sessionid", "{name}_csrftoken"\n'
        deploy_django(base, tmp_path / name, settings=named)
    blog, shop = (f"{base.url}/{name}/admin/" for name in ("blog", "shop"))

    check_two_admins(browser, blog, shop)
    assert browser.find("#header").style("background-color") == BLUE
    assert browser.run("[...document.images].every(image => image.naturalWidth > 0)")
    assert {cookie["name"].partition("_")[0] for cookie in browser.chrome.cookies()} == {"blog", "shop"}


def test_the_base_keeps_cookies_named_alike_apart_if_asked(base: BaseProcess, browser: Browser, tmp_path: Path) -> None:
    deploy_django(base, tmp_path / "plain", settings="\nMIDDLEWARE.pop(1)\n", urls=SERVED)
    deploy_django(base, tmp_path / "scoped", keys="scope-cookies = true")
    plain, scoped = (f"{base.url}/{name}/admin/" for name in ("plain", "scoped"))

    check_two_admins(browser, plain, scoped)  # cookies of the first are sent to both
    assert is_in(browser, plain)
    assert browser.find("#header").style("background-color") == BLUE  # by a URL pattern


PAGE = """
<p id=path>{{ url_for('page') }}</p><p id=count>{{ session['count'] }}</p><a href="{{ url_for('moved') }}">on</a>
"""
FLASK = f"""
from flask import Flask, redirect, render_template_string, session, url_for

app = Flask(__name__)
app.secret_key = "of this one alone: {{name}}"

@app.get("/")
def page():
    session["count"] = session.get("count", 0) + 1
    return render_template_string({PAGE!r})

@app.get("/moved")
def moved():
    return redirect(url_for("page"))
"""


def counts(browser: Browser, *urls: str) -> list[str]:
    found = []
    for url in urls:
        browser.open(url)
        found.append(browser.text("#count"))
    return found


def test_sessions_of_flask_are_of_one_application_by_name_path_or_key_of_the_module(
    base: BaseProcess, browser: Browser, tmp_path: Path
) -> None:
    kinds = {
        "alike": ("", ""),
        "named": ("app.config['SESSION_COOKIE_NAME'] = '{name}_session'", ""),
        "placed": ("app.config['SESSION_COOKIE_PATH'] = '/{name}'", ""),
        "rooted": ("app.config['APPLICATION_ROOT'] = '/{name}'", ""),
        "kept": ("", "scope-cookies = true"),
    }
    for kind, (setting, keys) in kinds.items():
        for name in (f"{kind}1", f"{kind}2"):
            source = (FLASK + setting).replace("{name}", name)
            base.deploy(write(tmp_path / name, {"web.py": source}, keys=f'entry = "web:app"\n{keys}', needs=("flask",)))
    seen = {}
    for kind in kinds:
        browser.forget()
        seen[kind] = counts(browser, *(f"{base.url}/{kind}{number}/" for number in (1, 2, 1, 2)))

    apart, lost = ["1", "1", "2", "2"], ["1", "1", "1", "1"]
    assert seen == {"alike": lost, "named": apart, "placed": apart, "rooted": apart, "kept": apart}
    browser.find("a").click()
    browser.shows("3", "#count")
    assert browser.text("#path") == "/kept2/"
    assert browser.chrome.current_url == f"{base.url}/kept2/"


FASTAPI = """
import asyncio
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

app = FastAPI()
app.mount("/static", StaticFiles(directory="static"), name="static")

@app.get("/", response_class=HTMLResponse)
def page(request: Request):
    style = request.url_for("static", path="page.css").path
    return f'<link rel=stylesheet href="{style}">' + '''<p id=heard></p><p id=streamed></p><script>
      const socket = new WebSocket("echo")
      socket.onopen = () => socket.send("hello")
      socket.onmessage = message => document.getElementById("heard").textContent = message.data
      const events = new EventSource("events")
      events.onmessage = message => { document.getElementById("streamed").textContent += message.data; }
      events.addEventListener("end", () => events.close())
    </script>'''

@app.get("/moved")
def moved(request: Request):
    return RedirectResponse(request.url_for("page"))

@app.get("/events")
def events():
    async def stream():
        for number in range(3):
            yield f"data: {number}\\n\\n"
            await asyncio.sleep(0)
        yield "event: end\\ndata:\\n\\n"
    return StreamingResponse(stream(), media_type="text/event-stream")

@app.websocket("/echo")
async def echo(socket: WebSocket):
    await socket.accept()
    await socket.send_text(f"{await socket.receive_text()} from {socket.url.path}")
    await socket.close()
"""


def test_links_redirects_websockets_and_events_of_fastapi_stay_below_the_path(
    base: BaseProcess, browser: Browser, tmp_path: Path
) -> None:
    files = {"web.py": FASTAPI, "static/page.css": "p { color: rgb(1, 2, 3) }"}
    base.deploy(write(tmp_path / "live", files, keys='entry = "web:app"', needs=("fastapi",)))

    browser.open(f"{base.url}/live/moved")
    assert browser.chrome.current_url == f"{base.url}/live/"
    browser.shows("hello from /live/echo", "#heard")
    browser.shows("012", "#streamed")
    assert browser.find("p").style("color") == "rgba(1, 2, 3, 1)"
    # The page of the documentation takes its scripts from another host; its description is the module's.
    browser.open(f"{base.url}/live/docs")
    assert "/live/openapi.json" in browser.chrome.page_source
    described = browser.run("fetch('openapi.json').then(answer => answer.json())")
    assert described["servers"] == [{"url": "/live"}]
    assert "/moved" in described["paths"]
