"""A Flask application of some size: a factory, blueprints, sessions, templates and static files of a package."""

import atexit
import logging

from flask import Flask, jsonify

log = logging.getLogger(__name__)


def create_app():
    app = Flask(__name__)
    app.secret_key = "only for tests"

    from .cart import cart
    from .pages import pages

    app.register_blueprint(pages)
    app.register_blueprint(cart, url_prefix="/cart")

    @app.template_filter("loud")
    def loud(text):
        return text.upper()

    @app.context_processor
    def everywhere():
        return {"shop_name": __name__}

    @app.errorhandler(LookupError)
    def missing(error):
        return jsonify(error=str(error)), 404

    @app.after_request
    def mark(response):
        response.headers["X-Shop"] = app.name
        return response

    atexit.register(log.info, "closed")
    return app
