from .one import NAME as FIRST

NAME = FIRST + " two"
