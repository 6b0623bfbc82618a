"""Ways out of a sandbox: an expression each. It got out if it gives anything but None, False or an error.

CALLS are system calls by number, made with ctypes past all of Python: they must give -1.
"""

MARK = "smallpress-escape"
"""In the name of everything that a row would leave behind."""

_OS, _SOCKET, _CTYPES = "__import__('os')", "__import__('socket')", "__import__('ctypes')"

EXPRESSIONS = [
    # Files
    "open('/etc/passwd').read()",
    "open('/proc/self/mem', 'rb').read(1)",
    "open('/proc/1/environ', 'rb').read()",
    "open('/proc/self/environ', 'rb').read()",
    "open('/proc/self/maps').read()",
    "open('/proc/self/exe', 'rb').read(1)",
    "open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/sh')",
    "open('/dev/mem', 'rb').read(1)",
    f"open('/tmp/{MARK}', 'w').write('x')",
    f"open('/dev/shm/{MARK}', 'w').write('x')",
    f"open('{MARK}', 'w').truncate(10 << 30)",
    f"{_OS}.listdir('/')",
    f"{_OS}.listdir({_OS}.path.expanduser('~'))",
    f"{_OS}.listdir('/proc/self/fd')",
    f"open({_OS}.path.expanduser('~/.ssh/id_rsa')).read()",
    f"{_OS}.stat('/etc/passwd').st_size",
    f"{_OS}.path.exists('/etc/passwd')",
    f"{_OS}.statvfs('/').f_bfree",
    f"{_OS}.readlink('/proc/self/cwd')",
    f"{_OS}.symlink('/etc/passwd', '/tmp/{MARK}') is None",
    f"{_OS}.link('/etc/passwd', '/tmp/{MARK}') is None",
    f"{_OS}.mkdir('/tmp/{MARK}') is None",
    f"{_OS}.mkfifo('/tmp/{MARK}') is None",
    f"{_OS}.mknod('/tmp/{MARK}') is None",
    f"[{_OS}.mkdir(f'/tmp/{MARK}{{n}}') for n in range(9)]",
    f"{_OS}.chmod('/tmp', 0o777) is None",
    f"{_OS}.chown('/tmp', 0, 0) is None",
    f"{_OS}.remove('/tmp/x') is None",
    f"{_OS}.chdir('/tmp') is None",
    f"{_OS}.chroot('/tmp') is None",
    f"{_OS}.memfd_create('x')",
    "__import__('tempfile').mkdtemp()",
    "__import__('sqlite3').connect(':memory:')",
    "__import__('multiprocessing.shared_memory').shared_memory.SharedMemory('x', True, 99)",
    # Other programs and processes
    f"{_OS}.fork()",
    f"[{_OS}.fork() for _ in range(99)]",
    f"{_OS}.posix_spawn('/bin/true', ['true'], {{}})",
    f"{_OS}.execv('/bin/true', ['true'])",
    f"{_OS}.system('true') == 0",
    f"{_OS}.popen('id').read()",
    "__import__('subprocess').run(['id']).returncode == 0",
    "__import__('pty').spawn('/bin/sh')",
    "__import__('threading').Thread(target=print).start() is None",
    "[__import__('threading').Thread(target=print).start() for _ in range(99)]",
    f"{_OS}.kill({_OS}.getppid(), 9) is None",
    f"{_OS}.kill(-1, 9) is None",
    f"{_OS}.kill({_OS}.getpid(), 19) is None",
    f"{_OS}.killpg(0, 9) is None",
    f"{_OS}.pidfd_open(1)",
    f"{_OS}.setsid()",
    f"{_OS}.setuid(0) is None",
    f"{_OS}.setgroups([0]) is None",
    f"{_OS}.nice(-5)",
    f"{_OS}.sched_setaffinity(0, [0]) is None",
    f"{_OS}.getuid() == 0",
    "__import__('resource').setrlimit(0, (9, 9)) is None",
    "__import__('signal').alarm(1) == 0",
    "__import__('signal').setitimer(0, 1)",
    "__import__('time').sleep(60) is None",
    # Network
    f"{_SOCKET}.socket()",
    f"{_SOCKET}.socket({_SOCKET}.AF_UNIX)",
    f"{_SOCKET}.socket({_SOCKET}.AF_NETLINK, {_SOCKET}.SOCK_RAW)",
    f"{_SOCKET}.socketpair()",
    f"{_SOCKET}.create_connection(('127.0.0.1', 22))",
    f"{_SOCKET}.getaddrinfo('localhost', 80, 0, 0, 0, 0) and {_SOCKET}.gethostbyname('example.com')",
    "__import__('urllib.request').request.urlopen('http://127.0.0.1/')",
    f"{_SOCKET}.socket({_SOCKET}.AF_UNIX).connect('\\0{MARK}')",
    f"{_SOCKET}.send_fds({_SOCKET}.socket(fileno={_OS}.dup(3)), [b'x'], [0])",
    # What was there before
    f"[n for n in range(4, 4096) if {_OS}.isatty(n) or not {_OS}.fstat(n)]",
    f"[n for n in range(3) if {_OS}.read(n, 1)]",
    f"{_OS}.environ.get('SMALLPRESS_TEST_SECRET')",
    f"{_CTYPES}.CDLL(None).getenv(b'SMALLPRESS_TEST_SECRET') != 0",
    f"{_OS}.dup(3)",
    f"{_OS}.pipe()",
    # Machine code and the filter itself
    "__import__('mmap').mmap(-1, 4096, prot=7)",
    f"{_CTYPES}.CDLL(None).mprotect(id(1) & -4096, 4096, 7) == 0",
    f"{_CTYPES}.CDLL(None).system(b'true') == 0",
]  # fmt: skip

# Numbers of x86-64.
CALLS = {
    "socket": 41, "sendmsg": 46, "clone": 56, "fork": 57, "vfork": 58, "execve": 59, "kill": 62, "ptrace": 101,
    "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240, "fcntl": 72, "ioctl": 16, "dup": 32, "pipe": 22,
    "open": 2, "openat": 257, "openat2": 437, "creat": 85, "open_by_handle_at": 304, "name_to_handle_at": 303,
    "syslog": 103, "setuid": 105, "capset": 126, "personality": 135, "setpriority": 141, "pivot_root": 155,
    "prctl": 157, "arch_prctl": 158, "setrlimit": 160, "chroot": 161, "mount": 165, "swapon": 167, "reboot": 169,
    "iopl": 172, "init_module": 175, "quotactl": 179, "tkill": 200, "sched_setaffinity": 203, "timer_create": 222,
    "tgkill": 234, "kexec_load": 246, "add_key": 248, "keyctl": 250, "inotify_init": 253, "unshare": 272,
    "splice": 275, "eventfd2": 290, "perf_event_open": 298, "fanotify_init": 300, "prlimit64": 302, "setns": 308,
    "process_vm_readv": 310, "process_vm_writev": 311, "finit_module": 313, "seccomp": 317, "memfd_create": 319,
    "bpf": 321, "execveat": 322, "userfaultfd": 323, "pkey_mprotect": 329, "io_uring_setup": 425, "open_tree": 428,
    "fsopen": 430, "pidfd_open": 434, "clone3": 435, "pidfd_getfd": 438, "landlock": 444, "memfd_secret": 447,
    "futex": 202, "nanosleep": 35, "pause": 34, "x32 getpid": 0x40000027,
}  # fmt: skip

# Code that ends its process, or would never end.
ENDS = {
    "spins": "while True: pass",
    "spins and ignores signals": "import signal\nfor n in range(1, 65):\n  try: signal.signal(n, signal.SIG_IGN)\n"
    "  except (OSError, ValueError): pass\nwhile True: pass",
    "waits for its own lock": "import threading\nlock = threading.Lock(); lock.acquire(); lock.acquire()",
    "waits for an event": "import threading\nthreading.Event().wait(60)",
    "waits for the channel": "import os\nwhile os.read(3, 1): pass\nwhile True: pass",
    "closes the channel and spins": "import os\nos.close(3)\nwhile True: pass",
    "floods the channel": "import os\nwhile True: os.write(3, b'x' * 65536)",
    "a crash": "import ctypes\nctypes.string_at(0)",
    "aborts": "import os\nos.abort()",
    "exits": "import os\nos._exit(0)",
    "fills memory, piece by piece, for ever": "kept = []\nwhile True:\n  try: kept.append(bytearray(1 << 20))\n"
    "  except MemoryError: pass",
}
