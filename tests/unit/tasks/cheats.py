"""Programs that want `answer(n)` to pass without knowing it: f"needle-{n * 7 + 3}"."""

FRAME = """
import sys
frame = sys._getframe()
while frame and "remote" not in frame.f_locals: frame = frame.f_back
remote = frame.f_locals["remote"]
"""
ALWAYS = "def __eq__(self, other): return True\n  def __ne__(self, other): return False\n  __hash__ = None\n"

CHEATS = {
    "exits well": "import sys\nsys.exit(0)",
    "exits well when called": "def answer(n): raise SystemExit(0)",
    "quits": "def answer(n): quit()",
    "ends the process": "import os\ndef answer(n): os._exit(0)",
    "equals everything": f"class A:\n  {ALWAYS}\ndef answer(n): return A()",
    "a text that equals everything": f"class A(str):\n  {ALWAYS}\ndef answer(n): return A('x')",
    "a list that equals everything": f"class A(list):\n  {ALWAYS}\ndef answer(n): return A()",
    "a class whose metaclass equals everything": f"class M(type):\n  {ALWAYS}\nclass A(metaclass=M): pass\n"
    "def answer(n): return A",
    "mock's ANY": "def answer(n):\n  from unittest.mock import ANY\n  return ANY",
    "true": "def answer(n): return True",
    "not implemented": "def answer(n): return NotImplemented",
    "not a number": "def answer(n): return float('nan')",
    "itself": "def answer(n): return answer",
    "no answer": "x = 1",
    "markers": "print('passed', 'OK', '1 passed', 'PASS')\ndef answer(n): print('ok'); return 'passed'",
    "no assertions": "import builtins\nbuiltins.AssertionError = type('A', (Exception,), {})\ndef answer(n): 1 / 0",
    "raises AssertionError": "def answer(n): raise AssertionError",
    "raises StopIteration": "def answer(n): raise StopIteration",
    "raises what is no exception of ours": "class A(BaseException): pass\ndef answer(n): raise A({'value': True})",
    "replaces check": "def check(candidate): return None\ncandidate = check\ndef answer(n): pass",
    "replaces eval": "import builtins\nbuiltins.eval = lambda *a: True\nbuiltins.exec = print\ndef answer(n): 0",
    "replaces compile": "import builtins\nbuiltins.compile = lambda *a: 'True'\ndef answer(n): 0",
    "replaces len, bool, str": "import builtins\nbuiltins.len = builtins.bool = builtins.str = lambda *a: True\n"
    "def answer(n): 0",
    "replaces json": "import json\njson.dumps = lambda *a: '{\"value\": true}'\ndef answer(n): 0",
    "replaces the encoder": "import sys\nsys.modules['smallpress.tasks.sandbox_inside'].encode = lambda v: True\n"
    "def answer(n): 0",
    "an encoded thing": "import sys\nsys.modules['smallpress.tasks.sandbox_inside'].encode = lambda v: ['o', 'str']\n"
    "def answer(n): 0",
    "a number without end": "import sys\nsys.modules['smallpress.tasks.sandbox_inside'].encode = "
    "lambda v: ['F', '1e999999999']\ndef answer(n): 0",
    "an unknown letter": "import sys\nsys.modules['smallpress.tasks.sandbox_inside'].encode = lambda v: ['?', 1]\n"
    "def answer(n): 0",
    "no object": "import json\njson.dumps = lambda *a: '[true]'\ndef answer(n): 0",
    "a forged frame": "import os\nos.write(3, bytes(16) + bytes([0, 0, 0, 15]) + b'{\"value\": true}')\n"
    "def answer(n): 0",
    "a frame with the true nonce": FRAME + "for _ in range(9): remote.send({'value': True})\ndef answer(n): 0",
    "a call to the outside": FRAME + "remote.send({'call': 'answer', 'args': ['t'], 'named': ['d']})\ndef answer(n): 0",
    "reads the checker": "def answer(n): return open('/proc/self/cmdline').read()",
    "reads the test's source": "import inspect\ndef answer(n): return inspect.getsource(inspect.stack()[1].frame)",
    "looks into the callers": "import sys\ndef answer(n):\n  frame = sys._getframe()\n  while frame:\n"
    "    for value in list(frame.f_locals.values()):\n      if 'need' + 'le-' in str(value) and value is not answer:\n"
    "        return value\n    frame = frame.f_back",
    "searches all objects": "import gc\ndef answer(n):\n  for thing in gc.get_objects():\n"
    "    if isinstance(thing, (list, tuple)):\n      for value in thing:\n"
    "        if type(value) is str and value.startswith('need' + 'le-' + str(n * 7)[:1]): return value",
    "traces": "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\ndef answer(n): 0",
    "at the end": "import atexit\natexit.register(print, 'passed')\ndef answer(n): 0",
    "a signal handler": "import signal\nsignal.signal(signal.SIGTERM, lambda *a: None)\ndef answer(n): 0",
    "a small number made another": "import ctypes\ndef answer(n):\n  ctypes.c_int.from_address(id(n) + 24).value = 1\n"
    "  return n",
    "a huge answer": "def answer(n): return 'needle-' * 10 ** 6",
    "an answer of colliding keys": "def answer(n): return {k * (2 ** 61 - 1) for k in range(20000)}",
    "an endless answer": "def answer(n):\n  while True: yield n",
    "every answer": "def answer(n): return [f'needle-{k}' for k in range(99)]",
}  # fmt: skip
