from django.contrib import admin

from app.models import Entry

admin.site.register(Entry)
