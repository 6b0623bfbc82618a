"""Templates that attack: none reads a file or the environment, none runs on, and the next one is rendered as ever."""

import os
import re
import resource
import subprocess
import threading
from pathlib import Path

import pytest

from smallpress.run.errors import UserError
from smallpress.tokenizer.templates import TemplateRenderer

SECRET = "7f3a9c-the-secret"
SECONDS = 0.5  # of the processor; two in use, which these tests would only spend
START = 1.0  # what starting Python and Jinja takes at most
MESSAGES = [{"role": "user", "content": "hi"}]

WORDS = {"SUBCLASSES": "''.__class__.__mro__[1].__subclasses__()", "BUILTINS": "__globals__['__builtins__']"}
READS = [
    "{{ SUBCLASSES }}",
    "{% for c in SUBCLASSES %}{% if c.__name__ == 'Popen' %}{{ c('cat FILE', shell=True, stdout=-1).communicate() }}"
    "{% endif %}{% endfor %}",
    "{{ ''['__class__']['__base__']['__subclasses__']() }}",
    "{{ ''|attr('__class__')|attr('__mro__') }}",
    "{{ ''|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ ''|attr(['_'*2, 'class', '_'*2]|join) }}",
    "{{ [''] | map(attribute='__class__') | list }}",
    "{{ [''] | map('attr', '__class__') | list }}",
    "{{ ['a'] | groupby('__class__') | list }}",
    "{{ ''.format.__self__.__class__ }}",
    "{{ '{0.__class__.__mro__}'.format('') }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(cycler('a')) }}",
    "{{ '{a.__class__}'.format_map({'a': ''}) }}",
    "{% set f = '{0.__class__}'.format %}{{ f('') }}",
    "{{ ('{0.__class__}'|attr('format'))('') }}",
    "{{ ['{0.__class__}'] | map('format', '') | list }}",
    "{{ cycler.__init__.BUILTINS['open']('FILE').read() }}",
    "{{ joiner.__init__.BUILTINS.open('FILE').read() }}",
    "{{ namespace.__init__.BUILTINS['__import__']('os').environ }}",
    "{{ lipsum.__globals__['os'].environ }}",
    "{{ lipsum.__globals__.os.popen('env').read() }}",
    "{{ raise_exception.__globals__['os'].environ }}",
    "{{ strftime_now.__globals__['sys'].modules['os'].environ }}",
    "{{ dict.__base__.__subclasses__() }}",
    "{{ dict.mro() }}",
    "{{ range.__class__ }}",
    "{{ self._TemplateReference__context.cycler.__init__.__globals__.os.environ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ namespace(__class__=1) }}",
    "{% set ns = namespace() %}{% set ns._Namespace__attrs = {} %}{{ ns.__class__ }}",
    "{% set ns = namespace({'__init__': 1}) %}{{ ns }}",
    "{{ messages.__class__ }}{{ messages.append({'role': 'system'}) }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{{ messages[0].__setitem__('role', 'system') }}",
    "{% macro m() %}{{ m.__globals__ }}{{ caller.__closure__ }}{% endmacro %}{{ m() }}",
    "{% for x in [1] %}{{ loop.__class__.__init__.__globals__ }}{% endfor %}",
    "{% include 'FILE' %}",
    "{% import 'FILE' as f %}{{ f }}",
    "{% from '/etc/passwd' import root %}",
    "{% extends '/proc/self/environ' %}",
    "{{ (messages | tojson).__class__ }}{{ messages | pprint }}{{ config }}{{ request }}{{ get_flashed_messages }}",
    "{{ ().__reduce_ex__(2) }}{{ messages.__reduce__() }}",
    "{% filter attr('__class__') %}x{% endfilter %}",
    "{{ (1).__class__ }}{{ None.__class__ }}{{ undefined_name.__class__.__init__.__globals__ }}",
    "{{ ''.encode.__self__ }}{{ 'FILE'.encode().decode.__func__ }}",
    "{% set x = strftime_now('%Y') %}{{ x.__class__.__init__.__globals__ }}{{ strftime_now(messages) }}",
]
TAKES_TOO_MUCH = [
    "{{ '%999999999d' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ 'x' * 10**10 }}",
    "{{ ('x' * 10**8) | list | length }}",
    "{{ 9 ** 999999999 }}",
    "{{ (10 ** 10000) | string * 100000 }}",
    "{{ range(10**9) | list }}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}" + "{% endfor %}" * 3,
    "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m(n) %}{% for i in range(99) %}{{ m(n) }}{% endfor %}{% endmacro %}{{ m(1) }}",
    "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "{{ lipsum(n=99999, min=99999, max=999999) }}",
    "{{ ('a' * 30000) | wordwrap(1) | indent(99999) }}",
    "{{ (range(99999) | list) | batch(1) | map('join') | list | tojson(indent=99999) }}",
    "{{ 'x' | center(999999999999) }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "[" * 100000 + " }}",
    "{{ " + "not " * 50000 + "1 }}",
    "{{ 'a' + " * 20000 + "'a'" + " }}" * 20000,
    "{% if 1 %}" * 3000 + "x" + "{% endif %}" * 3000,
    "{{ 1 }}" + " " * (1 << 21),
]


@pytest.fixture(scope="module")
def renderer():
    return TemplateRenderer(seconds=SECONDS)


@pytest.fixture
def secret_file(tmp_path, monkeypatch):
    monkeypatch.setenv("SMALLPRESS_SECRET", SECRET)
    file = tmp_path / "secret"
    file.write_text(SECRET)
    return file


@pytest.mark.parametrize("number", range(len(READS)))
def test_no_template_reads_a_file_or_the_environment(renderer, secret_file, number):
    template = READS[number]
    for word, meaning in (WORDS | {"FILE": str(secret_file)}).items():
        template = template.replace(word, meaning)
    try:
        text = renderer.render(template, {"messages": MESSAGES})
    except UserError as error:
        text = str(error)
    for leaked in (SECRET, "SMALLPRESS", "root:", "PATH", "<class", "built-in", "__builtins__", "module '"):
        assert leaked not in text
    assert MESSAGES == [{"role": "user", "content": "hi"}]


def processor_seconds() -> float:
    """Of the child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.parametrize("number", range(len(TAKES_TOO_MUCH)))
def test_a_template_that_takes_too_much_is_stopped_and_the_next_one_is_rendered(renderer, number):
    before = processor_seconds()
    with pytest.raises(UserError, match=r"the chat template (was stopped|refuses)"):
        renderer.render(TAKES_TOO_MUCH[number], {"messages": MESSAGES})
    assert processor_seconds() - before < SECONDS + START
    assert renderer.render("{{ messages[0].content }}", {"messages": MESSAGES}) == "hi"


def test_by_default_a_template_has_two_seconds():
    before = processor_seconds()
    with pytest.raises(UserError, match="was stopped: it takes over 2 s of the processor or 512 MB"):
        TemplateRenderer().render(TAKES_TOO_MUCH[8], {"messages": MESSAGES})
    assert 2.0 <= processor_seconds() - before < 2.0 + START


@pytest.fixture
def child_of(monkeypatch):
    """The processes that renderers start."""
    started = []
    popen = subprocess.Popen

    def watched(*arguments, **options):
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr("subprocess.Popen", watched)
    return started


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="the limits are read from /proc")
def test_the_process_has_no_files_no_environment_and_little_memory(child_of, secret_file):
    renderer = TemplateRenderer()
    assert renderer.render("{{ 1 }}", {}) == "1"
    process = Path(f"/proc/{child_of[0].pid}")
    limits = (process / "limits").read_text()
    for name, limit in (("open files", 3), ("address space", 512 << 20), ("file size", 0), ("core file size", 0)):
        assert re.search(rf"^Max {name} +{limit} +{limit} ", limits, re.MULTILINE), name
    assert sorted(os.listdir(process / "fd")) == ["0", "1", "2"]
    assert os.readlink(process / "cwd") == "/"
    assert SECRET not in (process / "environ").read_text()
    assert os.getsid(child_of[0].pid) == child_of[0].pid


def test_a_process_that_was_killed_is_replaced(child_of):
    renderer = TemplateRenderer()
    assert renderer.render("{{ 1 }}", {}) == renderer.render("{{ 1 }}", {}) == "1"
    assert len(child_of) == 1
    child_of[0].kill()
    child_of[0].wait()
    assert renderer.render("{{ 2 }}", {}) == "2" and len(child_of) == 2


def test_the_process_ends_with_its_renderer(child_of):
    renderer = TemplateRenderer()
    renderer.render("{{ 1 }}", {})
    del renderer
    assert child_of[0].wait(timeout=5) is not None


def test_threads_get_their_own_texts(renderer):
    texts: dict[int, str] = {}

    def render(number):
        texts[number] = renderer.render("{{ n }}" * 100, {"n": number})

    threads = [threading.Thread(target=render, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == {number: str(number) * 100 for number in range(12)}


def test_a_template_says_why_it_refuses(renderer):
    with pytest.raises(UserError, match="refuses these messages: roles must alternate"):
        renderer.render("{{ raise_exception('roles must alternate') }}", {})


def test_text_of_every_kind_comes_through(renderer):
    text = "中 😀 \ue000 \x00 \u2028 \r\n"
    assert renderer.render("{{ t }}", {"t": text}) == text
    assert len(renderer.render("{{ t }}", {"t": "中" * 1_000_000})) == 1_000_000
