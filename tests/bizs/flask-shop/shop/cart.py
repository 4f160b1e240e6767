from flask import Blueprint, flash, get_flashed_messages, request, session

cart = Blueprint("cart", __name__)


@cart.post("/add")
def add():
    session.setdefault("goods", []).append(request.form["name"])
    session.modified = True
    flash("added")
    return show()


@cart.get("/")
def show():
    return {"goods": session.get("goods", []), "messages": get_flashed_messages()}
