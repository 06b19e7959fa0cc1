/* SPDX-License-Identifier: Apache-2.0 */
/* The functions that stand in for libc's: each asks strike() whether it is to fail. */
#include "tests/support/fault.h"

#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MAX_CALLS = 1 << 18,
    LIVE_BITS = 14,
    LIVE = 1 << LIVE_BITS,
    FRAMES = 5,
    SKIP = 2,
    SHOWN = 20,
    BORN = 8
};

struct live {
    void *block;
    void *frames[BORN];
    int n_frames;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct fault armed;
static bool is_armed, fired;
static __thread bool is_inside; /* what backtrace() allocates is not the product's */
static long calls[FAULT_OPS];
static uint64_t stacks[FAULT_OPS][MAX_CALLS];
static struct live live[LIVE];
static void *struck[SHOWN];
static int n_struck, n_live;

/* --- counting ----------------------------------------------------------------------------------
 */

static uint64_t stack_hash(void)
{
    void *frames[FRAMES + SKIP];
    int n = backtrace(frames, FRAMES + SKIP);
    uint64_t hash = 14695981039346656037u;
    for (int i = SKIP; i < n; i++)
        hash = (hash ^ (uint64_t)(uintptr_t)frames[i]) * 1099511628211u;
    return hash;
}

/* 0, or what this call of `op` shall fail with. */
static int strike(enum fault_op op)
{
    if (!is_armed || is_inside)
        return 0;
    int error = 0;
    is_inside = true;
    pthread_mutex_lock(&lock);
    long n = ++calls[op];
    if (armed.at == 0 && n <= MAX_CALLS)
        stacks[op][n - 1] = stack_hash();
    if (armed.at > 0 && op == armed.op && (n == armed.at || (armed.lasts && n > armed.at))) {
        error = armed.error;
        if (!fired)
            n_struck = backtrace(struck, SHOWN);
        fired = true;
    }
    pthread_mutex_unlock(&lock);
    is_inside = false;
    if (error == FAULT_SIGNAL)
        raise(SIGINT);
    if (error != 0 && error != FAULT_SHORT)
        errno = error == FAULT_SIGNAL ? EINTR : error;
    return error;
}

static size_t place_of(const void *block)
{
    size_t i = ((uintptr_t)block >> 4) * 0x9e3779b97f4a7c15u >> (64 - LIVE_BITS);
    while (live[i].block && live[i].block != block)
        i = (i + 1) % LIVE;
    return i;
}

static void *born(void *block)
{
    if (!block || !is_armed || is_inside)
        return block;
    is_inside = true;
    pthread_mutex_lock(&lock);
    struct live *entry = &live[place_of(block)];
    if (!entry->block && ++n_live == LIVE / 2) /* then LIVE_BITS must grow */
        abort();
    entry->block = block;
    entry->n_frames = fired ? backtrace(entry->frames, BORN) : 0;
    pthread_mutex_unlock(&lock);
    is_inside = false;
    return block;
}

/* Removes the entry and moves up those that were put behind it. */
static void dies(const void *block)
{
    if (!block || is_inside)
        return;
    pthread_mutex_lock(&lock);
    size_t hole = place_of(block);
    if (live[hole].block) {
        live[hole].block = NULL;
        n_live--;
        for (size_t i = (hole + 1) % LIVE; live[i].block; i = (i + 1) % LIVE) {
            struct live moved = live[i];
            live[i].block = NULL;
            live[place_of(moved.block)] = moved;
        }
    }
    pthread_mutex_unlock(&lock);
}

void fault_arm(const struct fault *fault)
{
    memset(calls, 0, sizeof calls);
    memset(live, 0, sizeof live);
    fired = false;
    n_struck = n_live = 0;
    armed = *fault;
    is_armed = true;
}

void fault_disarm(void)
{
    is_armed = false;
}

bool fault_fired(void)
{
    return fired;
}

size_t fault_leaked(void)
{
    size_t n = 0;
    for (size_t i = 0; i < LIVE; i++)
        n += live[i].block != NULL;
    return n;
}

void fault_explain(void)
{
    if (n_struck > SKIP) {
        fprintf(stderr, "the fault struck in\n");
        backtrace_symbols_fd(struck + SKIP, n_struck - SKIP, 2);
    }
    for (size_t i = 0, n = 0; i < LIVE && n < 4; i++) {
        if (!live[i].block || ++n == 0)
            continue;
        fprintf(stderr, "not freed, allocated in\n");
        backtrace_symbols_fd(live[i].frames, live[i].n_frames, 2);
    }
}

long fault_calls(enum fault_op op)
{
    return calls[op];
}

struct call {
    uint64_t stack;
    long n;
};

static int by_stack(const void *a, const void *b)
{
    const struct call *x = a, *y = b;
    if (x->stack != y->stack)
        return x->stack < y->stack ? -1 : 1;
    return x->n < y->n ? -1 : 1;
}

static int by_number(const void *a, const void *b)
{
    const long *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

size_t fault_picks(enum fault_op op, long *picks, size_t room)
{
    static struct call order[MAX_CALLS];
    long last = calls[op] < MAX_CALLS ? calls[op] : MAX_CALLS;
    size_t n = 0;
    for (long i = 0; i < last; i++)
        order[i] = (struct call){stacks[op][i], i + 1};
    qsort(order, (size_t)last, sizeof *order, by_stack);
    for (long i = 0, first = 0; i < last && n < room; i++) {
        bool ends = i + 1 == last || order[i + 1].stack != order[i].stack;
        if (i == first || ends)
            picks[n++] = order[i].n;
        first = ends ? i + 1 : first;
    }
    qsort(picks, n, sizeof *picks, by_number);
    return n;
}

/* --- memory ------------------------------------------------------------------------------------
 */

#define WRAP(type, name, ...)                                                                      \
    type __real_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__);                                                               \
    type __wrap_##name(__VA_ARGS__)

WRAP(void *, malloc, size_t n)
{
    return strike(FAULT_MEMORY) ? NULL : born(__real_malloc(n));
}

WRAP(void *, calloc, size_t n, size_t size)
{
    return strike(FAULT_MEMORY) ? NULL : born(__real_calloc(n, size));
}

WRAP(void *, realloc, void *block, size_t n)
{
    if (strike(FAULT_MEMORY))
        return NULL;
    dies(block);
    return born(__real_realloc(block, n));
}

WRAP(void *, aligned_alloc, size_t alignment, size_t n)
{
    return strike(FAULT_MEMORY) ? NULL : born(__real_aligned_alloc(alignment, n));
}

WRAP(char *, strdup, const char *text)
{
    return strike(FAULT_MEMORY) ? NULL : born(__real_strdup(text));
}

WRAP(char *, realpath, const char *path, char *out)
{
    if (!out && strike(FAULT_MEMORY))
        return NULL;
    char *found = __real_realpath(path, out);
    return out ? found : born(found);
}

WRAP(int, vasprintf, char **out, const char *format, va_list args)
{
    if (strike(FAULT_MEMORY))
        return -1;
    int n = __real_vasprintf(out, format, args);
    born(n < 0 ? NULL : *out);
    return n;
}

int __wrap_asprintf(char **out, const char *format, ...);
int __wrap_asprintf(char **out, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = __wrap_vasprintf(out, format, args);
    va_end(args);
    return n;
}

WRAP(void, free, void *block)
{
    dies(block);
    __real_free(block);
}

/* A stream in memory that cannot grow: the buffer of the stream hides it for a while. */
static ssize_t refuse(void *cookie, const char *bytes, size_t n)
{
    (void)cookie;
    (void)bytes;
    (void)n;
    errno = ENOMEM;
    return 0;
}

WRAP(FILE *, open_memstream, char **text, size_t *n)
{
    static const cookie_io_functions_t functions = {.write = refuse};
    return strike(FAULT_MEMORY) ? fopencookie(NULL, "w", functions)
                                : __real_open_memstream(text, n);
}

static sqlite3_mem_methods sqlite_memory;
static bool sqlite_is_spared;

void fault_spare_sqlite(bool is_spared)
{
    sqlite_is_spared = is_spared;
}

static void *sqlite_malloc(int n)
{
    return !sqlite_is_spared && strike(FAULT_MEMORY) ? NULL : sqlite_memory.xMalloc(n);
}

static void *sqlite_realloc(void *block, int n)
{
    return !sqlite_is_spared && strike(FAULT_MEMORY) ? NULL : sqlite_memory.xRealloc(block, n);
}

/* --- files -------------------------------------------------------------------------------------
 */

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, int) : 0;
    va_end(args);
    return strike(FAULT_OPEN) ? -1 : __real_open(path, flags, mode);
}

/* What /proc says of the machine may be missing, and the rest goes on. */
WRAP(FILE *, fopen, const char *path, const char *mode)
{
    return strncmp(path, "/proc/", 6) != 0 && strike(FAULT_OPEN) ? NULL : __real_fopen(path, mode);
}

WRAP(int, fstat, int fd, struct stat *info)
{
    return strike(FAULT_STAT) ? -1 : __real_fstat(fd, info);
}

/* How much of `n` to move; 0: fail. */
static size_t share(enum fault_op op, size_t n)
{
    int error = strike(op);
    return error == 0 ? n : error == FAULT_SHORT && n > 0 ? 1 : 0;
}

WRAP(ssize_t, pread, int fd, void *out, size_t n, off_t at)
{
    size_t part = share(FAULT_READ, n);
    return n && !part ? -1 : __real_pread(fd, out, part, at);
}

WRAP(ssize_t, read, int fd, void *out, size_t n)
{
    size_t part = share(FAULT_READ, n);
    return n && !part ? -1 : __real_read(fd, out, part);
}

WRAP(ssize_t, pwrite, int fd, const void *bytes, size_t n, off_t at)
{
    size_t part = share(FAULT_WRITE, n);
    return n && !part ? -1 : __real_pwrite(fd, bytes, part, at);
}

WRAP(ssize_t, write, int fd, const void *bytes, size_t n)
{
    size_t part = share(FAULT_WRITE, n);
    return n && !part ? -1 : __real_write(fd, bytes, part);
}

/* Not by --wrap: SQLite calls these two past its table of system calls. Nothing here outlives the
 * power, so the disk is left in peace. */
int fsync(int fd)
{
    (void)fd;
    return strike(FAULT_SYNC) ? -1 : 0;
}

int fdatasync(int fd)
{
    (void)fd;
    return strike(FAULT_SYNC) ? -1 : 0;
}

WRAP(int, rename, const char *from, const char *to)
{
    return strike(FAULT_RENAME) ? -1 : __real_rename(from, to);
}

WRAP(int, fallocate, int fd, int mode, off_t at, off_t n)
{
    return strike(FAULT_ROOM) ? -1 : __real_fallocate(fd, mode, at, n);
}

WRAP(int, ftruncate, int fd, off_t n)
{
    return strike(FAULT_ROOM) ? -1 : __real_ftruncate(fd, n);
}

WRAP(int, mkstemp, char *path)
{
    return strike(FAULT_TEMP) ? -1 : __real_mkstemp(path);
}

WRAP(FILE *, tmpfile, void)
{
    return strike(FAULT_TEMP) ? NULL : __real_tmpfile();
}

WRAP(int, pthread_create, pthread_t *thread, const pthread_attr_t *attr, void *(*run)(void *),
     void *argument)
{
    return strike(FAULT_THREAD) ? EAGAIN : __real_pthread_create(thread, attr, run, argument);
}

static void *sqlite_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    return strike(FAULT_MAP) ? MAP_FAILED : mmap(at, n, protection, flags, fd, offset);
}

void fault_init(void)
{
    /* A shell without job control starts background work with SIGINT ignored, which is respected.
     */
    signal(SIGINT, SIG_DFL);
    void *frames[2];
    (void)backtrace(frames, 2); /* loads what it needs */
    sqlite3_config(SQLITE_CONFIG_GETMALLOC, &sqlite_memory);
    sqlite3_mem_methods memory = sqlite_memory;
    memory.xMalloc = sqlite_malloc;
    memory.xRealloc = sqlite_realloc;
    sqlite3_config(SQLITE_CONFIG_MALLOC, &memory);
    sqlite3_initialize();
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
#define HOOK(name, function) vfs->xSetSystemCall(vfs, name, (sqlite3_syscall_ptr)(function))
    HOOK("open", __wrap_open);
    HOOK("fstat", __wrap_fstat);
    HOOK("read", __wrap_read);
    HOOK("pread", __wrap_pread);
    HOOK("pread64", __wrap_pread);
    HOOK("write", __wrap_write);
    HOOK("pwrite", __wrap_pwrite);
    HOOK("pwrite64", __wrap_pwrite);
    HOOK("ftruncate", __wrap_ftruncate);
    HOOK("mmap", sqlite_mmap);
}
