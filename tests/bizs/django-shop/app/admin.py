from django.contrib import admin

from app.models import Item

admin.site.register(Item)
