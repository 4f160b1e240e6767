from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request

from .models import Item, Page

router = APIRouter()
known: dict[str, Item] = {}


@router.put("/{name}")
async def put(name: str, item: Item) -> Item:
    known[name] = item
    return item


@router.get("/{name}", name="item")
def get(name: str, request: Request):
    if name not in known:
        raise HTTPException(404, f"no {name}")
    return {"item": known[name], "link": request.url_for("item", name=name).path}


@router.get("/")
def everything() -> Page[Item]:
    return Page[Item](rows=list(known.values()), total=len(known))
