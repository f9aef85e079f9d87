"""The seccomp profile: container capabilities and the host's architecture in, OCI `linux.seccomp` out. Pure.

Invariant: what is not listed is refused. A call the profile knows to be dangerous answers EPERM, as users of
Docker expect; one it has never heard of answers ENOSYS, so that a C library newer than this list falls back
to the older call instead of giving up. Names that the host's libseccomp does not know are skipped by the
runtimes. Source: man 2 syscalls, man 7 capabilities; docs/decisions/0013-containers-by-conmon-and-crun.md.
"""

from __future__ import annotations

EPERM = 1
ENOSYS = 38
EAFNOSUPPORT = 97

_NAMESPACE_FLAGS = 0x7E020000
"""CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}: each needs SYS_ADMIN here, user namespaces included."""

_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""PER_LINUX, PER_LINUX32, UNAME26, both, and the query."""

_FIRST_UNSAFE_FAMILY = 38
"""AF_ALG: families from here on (NFC, VSOCK, KCM, SMC, XDP ...) reach the host or little-tested code."""

_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}

_FILES = """
access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64
fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync
ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat inotify_add_watch
inotify_init inotify_init1 inotify_rm_watch ioctl lchown lchown32 lgetxattr link linkat listxattr
listxattrat llistxattr lremovexattr lseek _llseek lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat
name_to_handle_at newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2
read readahead readlink readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile
sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64 statx symlink symlinkat sync
sync_file_range sync_file_range2 arm_sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat
utime utimensat utimensat_time64 utimes vmsplice write writev fanotify_mark cachestat
"""
_EVENTS = """
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
eventfd eventfd2 io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit
_newselect poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4 timerfd_create
timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
"""
_MEMORY = """
brk get_mempolicy madvise map_shadow_stack mbind membarrier memfd_create memfd_secret mincore mlock mlock2
mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect
process_madvise process_mrelease remap_file_pages set_mempolicy set_mempolicy_home_node
"""
_PROCESSES = """
alarm arch_prctl arm_fadvise64_64 breakpoint cacheflush capget capset execve execveat exit exit_group fork
futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list get_thread_area getcpu
getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpgid getpgrp getpid
getppid getpriority getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid getuid
getuid32 ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self
lsm_get_self_attr lsm_list_modules modify_ldt nanosleep pause pidfd_open pidfd_send_signal prctl prlimit64
ptrace restart_syscall riscv_hwprobe rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
sched_setscheduler sched_yield seccomp set_robust_list set_thread_area set_tid_address set_tls setfsgid
setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid
setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32
sigaction sigaltstack sigpending sigprocmask sigreturn sigsuspend tgkill time timer_create timer_delete
timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 times tkill ugetrlimit uname
uretprobe vfork wait4 waitid waitpid chroot
"""
_CLOCKS_AND_STATE = """
adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
clock_nanosleep clock_nanosleep_time64 getrandom gettimeofday sysinfo
"""
_IPC_AND_NETWORK = """
accept accept4 bind connect getpeername getsockname getsockopt ipc listen mq_getsetattr mq_notify mq_open
mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv
msgsnd recv recvfrom recvmmsg recvmmsg_time64 recvmsg semctl semget semop semtimedop semtimedop_time64 send
sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown socketcall socketpair
"""
_REFUSED = """
_sysctl acct add_key bpf clock_settime clock_settime64 create_module delete_module fanotify_init
finit_module fsconfig fsmount fsopen fspick get_kernel_syms init_module io_uring_enter io_uring_register
io_uring_setup ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mount mount_setattr
move_mount move_pages migrate_pages nfsservctl open_by_handle_at open_tree perf_event_open pidfd_getfd
pivot_root process_vm_readv process_vm_writev query_module quotactl quotactl_fd reboot request_key
setdomainname sethostname setns settimeofday stime swapoff swapon sysfs syslog umount umount2 unshare uselib
userfaultfd ustat vhangup vm86 vm86old
"""
_BY_CAPABILITY = {
    "CAP_SYS_ADMIN": """
        bpf clone fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr
        move_mount open_tree perf_event_open pivot_root quotactl quotactl_fd setdomainname sethostname
        setns syslog umount umount2 unshare
    """,
    "CAP_SYS_BOOT": "kexec_file_load kexec_load reboot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_vm_readv process_vm_writev",
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_NICE": "migrate_pages move_pages",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYSLOG": "syslog",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
}

Rule = dict[str, object]


def seccomp_profile(*, capabilities: frozenset[str], architecture: str) -> dict[str, object] | None:
    """The profile for a container with `capabilities`; None on an architecture not written for."""
    if architecture not in _ARCHITECTURES:
        return None
    families = (_FILES, _EVENTS, _MEMORY, _PROCESSES, _CLOCKS_AND_STATE, _IPC_AND_NETWORK)
    allowed = {name for family in families for name in family.split()}
    for capability, names in _BY_CAPABILITY.items():
        if capability in capabilities:
            allowed.update(names.split())
    if "CAP_SYS_CHROOT" not in capabilities:
        allowed.discard("chroot")
    refused = set(_REFUSED.split()) - allowed
    rules: list[Rule] = [_rule(allowed), _rule(refused, errno=EPERM), *_socket_and_personality()]
    if "clone" not in allowed:
        rules.append(_rule({"clone"}, argument=(0, _NAMESPACE_FLAGS, "SCMP_CMP_MASKED_EQ", 0)))
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": ENOSYS,
        "architectures": list(_ARCHITECTURES[architecture]),
        "syscalls": rules,
    }


def _socket_and_personality() -> list[Rule]:
    rules = [_rule({"personality"}, argument=(0, value, "SCMP_CMP_EQ", 0)) for value in _PERSONALITIES]
    rules.append(_rule({"socket"}, argument=(0, _FIRST_UNSAFE_FAMILY, "SCMP_CMP_LT", 0)))
    refused = (0, _FIRST_UNSAFE_FAMILY, "SCMP_CMP_GE", 0)
    rules.append(_rule({"socket"}, errno=EAFNOSUPPORT, argument=refused))
    return rules


def _rule(
    names: set[str], *, errno: int | None = None, argument: tuple[int, int, str, int] | None = None
) -> Rule:
    rule: Rule = {"names": sorted(names), "action": "SCMP_ACT_ALLOW" if errno is None else "SCMP_ACT_ERRNO"}
    if errno is not None:
        rule["errnoRet"] = errno
    if argument is not None:
        index, value, operator, value_two = argument
        rule["args"] = [{"index": index, "value": value, "valueTwo": value_two, "op": operator}]
    return rule
