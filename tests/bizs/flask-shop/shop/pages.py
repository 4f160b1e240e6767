from flask import Blueprint, Response, current_app, redirect, render_template, stream_with_context, url_for

pages = Blueprint("pages", __name__)


@pages.get("/")
def index():
    return render_template("index.html", goods=["tea", "<cup>"])


@pages.get("/old")
def old():
    return redirect(url_for("pages.index"))


@pages.get("/links")
def links():
    return {
        "index": url_for("pages.index"),
        "external": url_for("cart.show", _external=True),
        "static": url_for("static", filename="style.css"),
        "rules": sorted(rule.rule for rule in current_app.url_map.iter_rules()),
    }


@pages.get("/stream")
def stream():
    return Response(stream_with_context(f"{n};" for n in range(100)), mimetype="text/plain")


@pages.get("/missing")
def missing():
    raise KeyError("nothing here")
