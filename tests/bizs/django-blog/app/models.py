"""What is stored."""

import logging

from django.contrib.auth import get_user_model
from django.db import models
from django.db.models.signals import post_save
from django.dispatch import receiver


class Entry(models.Model):
    name = models.CharField(max_length=80)
    text = models.TextField()

    def __str__(self):
        return self.name


@receiver(post_save, sender=Entry)
def say(sender, instance, created, **others):
    logging.getLogger("app.models").info("%s %s", "made" if created else "kept", instance)


def prepare():
    """The rows that are there from the start."""
    row, _ = Entry.objects.get_or_create(name="first", defaults={"text": "<words>"})
    row.save()
    if not get_user_model().objects.filter(username="admin").exists():
        get_user_model().objects.create_superuser("admin", "a@example.com", "secret")
