"""The pages."""

import pickle
from importlib.metadata import version

import django
from django.db import connection
from django.db.models import Count
from django.http import JsonResponse
from django.shortcuts import render
from django.urls import reverse

from app.logs import Memory
from app.models import Entry


def index(request):
    return render(request, "app/index.html", {"rows": Entry.objects.order_by("name")})


def facts(request):
    row = Entry.objects.first()
    return JsonResponse(
        {
            "django": django.get_version(),
            "metadata": version("django"),
            "label": Entry._meta.label,
            "tables": sorted(name for name in connection.introspection.table_names() if name.startswith("app_")),
            "count": Entry.objects.aggregate(n=Count("pk")),
            "row": str(pickle.loads(pickle.dumps(row))),
            "index": reverse("app:index"),
            "logged": Memory.lines[-1],
        }
    )


def oops(request):
    raise ValueError("oops of django-blog")
