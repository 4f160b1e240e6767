"""The application; its database is made when it starts."""

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"

from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402

application = get_wsgi_application()

call_command("migrate", verbosity=0, interactive=False)

from app.models import prepare  # noqa: E402

prepare()
