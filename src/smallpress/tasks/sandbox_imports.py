"""What code in a sandbox can import, loaded before it gives up files."""

# ruff: noqa: F401

import _strptime  # type: ignore[import-not-found]
import abc
import array
import ast
import base64
import binascii
import bisect
import bz2
import calendar
import cmath
import collections
import collections.abc
import colorsys
import contextlib
import copy
import csv
import dataclasses
import datetime
import decimal
import difflib
import encodings.ascii
import encodings.idna
import encodings.latin_1
import encodings.utf_16
import encodings.utf_32
import enum
import fractions
import functools
import graphlib
import hashlib
import heapq
import hmac
import html
import importlib
import inspect
import io
import ipaddress
import itertools
import json
import keyword
import locale
import math
import numbers
import operator
import pprint
import queue
import random
import re
import sched
import secrets
import shlex
import statistics
import string
import struct
import sys
import textwrap
import threading
import time
import timeit
import traceback
import types
import typing
import unicodedata
import unittest
import urllib.parse
import uuid
import warnings
import weakref
import zlib
import zoneinfo

N_MODULES = len(sys.modules)
