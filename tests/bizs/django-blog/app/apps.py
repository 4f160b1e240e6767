from django.apps import AppConfig


class TheConfig(AppConfig):
    name = "app"
