"""A Flask application: a route, a converter, a form, a session."""

import threading

from flask import Flask, request, url_for

app = Flask(__name__)


@app.get("/")
def root():
    return {"here": url_for("root"), "thread": threading.current_thread().name}


@app.get("/user/<int:number>")
def user(number: int):
    return {"user": number, "script": request.script_root}


@app.post("/form")
def form():
    return dict(request.form)
