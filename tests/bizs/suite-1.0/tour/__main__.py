import sys

from tour import VALUE

print("main", VALUE, sys.argv[1:])
