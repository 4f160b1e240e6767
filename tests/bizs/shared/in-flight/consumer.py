"""Right: the value of the version that was asked (1, or 0 to 9), or "BizGone" at the drain deadline.

Never silence, never a 500.
"""
from koupleless import BizGone
from koupleless.service import use
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

provider = use("provider", biz="provider")


async def ask(request):
    what = request.url.query
    print("asked", flush=True)
    try:
        if what == "agen":
            return PlainTextResponse(str([item async for item in provider.agen()]))
        return PlainTextResponse(str(await getattr(provider, what)()))
    except BizGone as error:
        return PlainTextResponse(f"BizGone: {error}", status_code=503)


app = Starlette(routes=[Route("/", ask)])
